"""rs.run: a torch module in parallel over time, or by its own loop where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from recsolve.interop.layers import Layers
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.method import Method, Stage
from recsolve.solvers.problem import Problem

_TRIALS = 2  # of each way, before the faster one is known: the first may load libraries
_LOSES = 1.05  # a run that takes so many times what the module's own loop took ends the preference for runs


class RunResult(tuple[Any, Any]):
    """What :func:`run` returns: the pair ``(output, h_n)`` of the module, and how it was found.

    Attributes
    ----------
    how : str
        "recsolve", with the method; or "the module's own loop", with the reason.
    """

    how: str

    def __new__(cls, output: Any, final: Any, how: str) -> RunResult:
        """Return the pair."""
        made = super().__new__(cls, (output, final))
        made.how = how
        return made

    def __getnewargs__(self) -> tuple[Any, Any, str]:
        """Return what a copy is made of."""
        return (*self, self.how)


@dataclass
class _Book:
    """The seconds that calls of a module have taken, by what they were called with."""

    loop: dict[Any, list[float]] = field(default_factory=dict)
    parallel: dict[Any, list[float]] = field(default_factory=dict)


_BOOKS: WeakKeyDictionary[Any, _Book] = WeakKeyDictionary()


def run(module: Any, x: Any, hx: Any = None, **settings: Any) -> RunResult:
    """Run a torch RNN, GRU or LSTM in parallel over time.

    Parameters
    ----------
    module : torch.nn.RNN, GRU or LSTM
        Also scripted; any number of layers, one or both directions, ``batch_first`` or not.
    x, hx : tensor
        As the module's own arguments; x may be a ``torch.nn.utils.rnn.PackedSequence``, and the output then is one.
    **settings
        ``method``, ``tol``, ``maxiter``, ``options`` and ``fallback`` of :func:`recsolve.solve`; the fallback is
        "sequential" unless "raise" is given, so the result is always the answer. ``lengths`` and ``reset`` of
        :meth:`Layers.solve`, for padded or packed sequences. With ``method="auto"`` and nothing else, tensors on a GPU
        are run by the module itself (cuDNN's loop, with TF32 products where torch allows them) where that is faster:
        the first calls of a shape measure both.

    Returns
    -------
    RunResult
        ``(output, h_n)`` as the module would return them, without gradients; ``.how`` says how they were found.

    Raises
    ------
    TypeError
        For another module, or mixed kinds or dtypes.
    ValueError
        For wrong shapes or lengths, or dropout in training mode.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> module = torch.nn.GRU(3, 8, num_layers=2, bidirectional=True)
    >>> x = torch.randn(50, 4, 3)
    >>> y, hn = rs.run(module, x, method="newton")
    >>> bool(torch.allclose(y, module(x)[0], atol=1e-5))
    True
    """
    layers = Layers.from_torch(module)
    packed = type(x).__name__ == "PackedSequence"
    if settings == {"method": "auto"} and has_own_loop(x) and not packed:
        return _faster(module, layers, x, hx)
    method = settings.get("method", "newton")
    output, final = _packed(layers, x, hx, settings) if packed else layers.run(x, hx, **settings)
    return RunResult(output, final, f"recsolve, {getattr(method, 'name', method)}")


def _packed(layers: Layers, x: Any, hx: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return what the module would of packed sequences: the output packed in the same way."""
    from torch.nn.utils import rnn

    if not {"lengths", "reset"}.isdisjoint(settings):
        raise ValueError("lengths or reset is given, but x is a PackedSequence, which says where sequences end")
    padded, lengths = rnn.pad_packed_sequence(x, batch_first=layers.batch_first)
    output, final = layers.run(padded, hx, lengths=lengths, **settings)
    if x.sorted_indices is not None:  # sequences lie in another order in what is packed
        output = output.index_select(1 - layers.batch_first, x.sorted_indices)
        lengths = lengths[x.sorted_indices.cpu()]
    data = rnn.pack_padded_sequence(output, lengths, batch_first=layers.batch_first).data
    return type(x)(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices), final


def has_own_loop(x: Any) -> bool:
    """Return whether the module's own loop over x may be the faster one: on a CPU ours, which is compiled, is."""
    return bool(getattr(x, "is_cuda", False))


class _Sweeps(Method):
    """Compiled sweeps, or nothing: the module's own loop is what they fall back to."""

    name: ClassVar[str] = "sweeps"
    matrix: ClassVar[str] = "k x k block of J per unit"
    cite: ClassVar[str] = "Gonzalez et al., NeurIPS 2024 (arXiv 2407.19115)"
    finite_termination: ClassVar[bool] = False
    exact_on_affine: ClassVar[str] = "per-unit"

    def direct(self, problem: Problem) -> Verdict | None:
        return problem.engine.solve("sweeps", problem.tolerance)

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        return (Stage(Jacobi(), iterations=0),)


def _faster(module: Any, layers: Layers, x: Any, hx: Any) -> RunResult:
    """Return the result of the faster way, or of the one that has been tried less often."""
    layers.check_arguments(x, hx)
    book, key = _BOOKS.setdefault(module, _Book()), (tuple(x.shape), x.dtype)
    loop, parallel = book.loop.setdefault(key, []), book.parallel.setdefault(key, [])
    tried = min(len(loop), len(parallel)) >= _TRIALS
    if (len(parallel) <= len(loop)) if not tried else min(parallel) * _LOSES < min(loop):
        found, seconds = _timed(lambda: layers.solve(x, hx, method=_Sweeps()))
        if found.success:
            parallel.append(seconds)
            if tried and seconds > _LOSES * min(loop):  # these data remember longer
                parallel[:] = [seconds] * _TRIALS
            iterations = "+".join(str(solution.nit) for solution in found.solutions)
            return RunResult(found.output, found.final, f"recsolve, {iterations} sweeps")
        parallel[:] = [float("inf")] * _TRIALS
    result, seconds = _timed(lambda: _own(module, x, hx))
    loop.append(seconds)
    why = "sweeps do not converge" if parallel and parallel[-1] == float("inf") else "it is faster, or not known yet"
    return RunResult(result[0], result[1], f"the module's own loop: {why}")


def _own(module: Any, x: Any, hx: Any) -> tuple[Any, Any]:
    import torch

    with torch.no_grad():
        output, final = module(x) if hx is None else module(x, hx)
    return output, final


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds until the device has it, without compilation."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    watch = Stopwatch()
    found = call()
    wait()
    return found, watch.seconds
