"""rs.run: a torch module in parallel over time, or by its own loop where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from recsolve.base.shard import Shard
from recsolve.interop.layers import Layers
from recsolve.interop.layers_solution import LayersSolution
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.method import Method, Stage
from recsolve.solvers.problem import Problem
from recsolve.solvers.sequential import Sequential

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


# The seconds that calls of a module have taken, by what they were called with and by the way.
_BOOKS: WeakKeyDictionary[Any, dict[Any, dict[str, list[float]]]] = WeakKeyDictionary()


def run(module: Any, x: Any, hx: Any = None, **settings: Any) -> RunResult:
    """Run a torch RNN, GRU or LSTM in parallel over time.

    Parameters
    ----------
    module : torch.nn.RNN, GRU or LSTM
        Also scripted; any number of layers, one or both directions, ``batch_first`` or not.
    x, hx : tensor
        As the module's own arguments; x may be a ``torch.nn.utils.rnn.PackedSequence``, and the output then is one. Or
        a Shard of tensors (T, [B], D), time first, of which this rank holds some steps
        (:func:`recsolve.distributed.shard`): the output is one, and ``h_n`` the same on every rank.
    **settings
        ``method``, ``tol``, ``maxiter``, ``options`` and ``fallback`` of :func:`recsolve.solve`; the fallback is
        "sequential" unless "raise" is given, so the result is always the answer. ``lengths`` and ``reset`` of
        :meth:`Layers.solve`, for padded or packed sequences. With ``method="auto"`` and nothing else, tensors on a GPU
        are run by the module itself (cuDNN's loop, with TF32 products where torch allows them) where that is faster
        than sweeps over all of time and than a compiled walk: the first calls of a shape measure all three. Of shards
        the method is "auto" unless one is given, and no lengths are taken.

    Returns
    -------
    RunResult
        ``(output, h_n)`` as the module would return them, without gradients; ``.how`` says how they were found. Those
        of shards carry gradients: the backward of each rank gives the part of its own steps in the gradient of the sum
        of all ranks' losses, and every rank must go back.

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
    if isinstance(x, Shard):
        settings = {"method": "auto", **settings}
        layers = Layers.of_weights(module, Layers.weights_of(module, linked=True))
        how = f"recsolve, {getattr(settings['method'], 'name', settings['method'])}, on {x.timeline.size} ranks"
        return RunResult(*layers.run(x, hx, **settings), how)
    layers = _layers_of(module)
    packed = type(x).__name__ == "PackedSequence"
    if settings == {"method": "auto"} and has_own_loop(x) and not packed:
        return _faster(module, layers, x, hx)
    method = settings.get("method", "newton")
    output, final = _packed(layers, x, hx, settings) if packed else layers.run(x, hx, **settings)
    return RunResult(output, final, f"recsolve, {getattr(method, 'name', method)}")


class _Kept(NamedTuple):
    """The layers of a module, and the weights that they were made of."""

    described: Any
    flat: Any
    layers: Layers


_LAYERS: WeakKeyDictionary[Any, _Kept] = WeakKeyDictionary()


def _layers_of(module: Any) -> Layers:
    """Return the layers of a module: those of the last call if it still has the same numbers.

    The numbers are compared, which takes a launch or two: versions of tensors do not tell of what is written to
    ``parameter.data``.
    """
    weights = Layers.weights_of(module)  # which refuses what is no module of torch, with or without torch
    import torch

    described = module.batch_first, module.mode, [(n, w.shape, w.dtype, w.device) for n, w in weights.items()]
    if len({w.device for w in weights.values()}) > 1:
        return Layers.from_torch(module)  # which says what is wrong
    flat = torch.cat([w.reshape(-1) for w in weights.values()])
    known = _LAYERS.get(module)
    if known is None or known.described != described or not torch.equal(known.flat, flat):
        known = _LAYERS[module] = _Kept(described, flat, Layers.from_torch(module))
    return known.layers


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
    """Compiled sweeps, or nothing: there are other ways to take in their place."""

    name: ClassVar[str] = "sweeps"
    matrix: ClassVar[str] = "k x k block of J per unit"
    cite: ClassVar[str] = "Gonzalez et al., NeurIPS 2024 (arXiv 2407.19115)"
    finite_termination: ClassVar[bool] = False
    exact_on_affine: ClassVar[str] = "per-unit"

    def direct(self, problem: Problem) -> Verdict | None:
        return problem.engine.solve("sweeps", problem.tolerance)

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        return (Stage(Jacobi(), iterations=0),)


class _Walk(_Sweeps):
    """A compiled walk, or nothing."""

    name: ClassVar[str] = "walk"
    matrix: ClassVar[str] = "none: one step after the other"
    cite: ClassVar[str] = "the definition"

    def direct(self, problem: Problem) -> Verdict | None:
        return problem.engine.solve("walk", problem.tolerance)

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        return (Stage(Sequential()),) if problem.engine.compiled else super().stages(problem)


_WAYS: dict[str, Method | None] = {"sweeps": _Sweeps(), "walk": _Walk(), "module": None}


def _faster(module: Any, layers: Layers, x: Any, hx: Any) -> RunResult:
    """Return the result of the fastest way, or of the one that has been tried the least."""
    layers.check_arguments(x, hx)
    books = _BOOKS.setdefault(module, {})
    book = books.setdefault((tuple(x.shape), x.dtype), {way: [] for way in _WAYS})
    way, tried = _next(book)
    if (method := _WAYS[way]) is not None:
        found, seconds = _timed(lambda: layers.solve(x, hx, method=method))
        if found.success:
            book[way].append(seconds)
            if tried and seconds > _LOSES * min(min(book[other]) for other in _WAYS if other != way):
                book[way] = [seconds] * _TRIALS  # these data remember longer
            return RunResult(found.output, found.final, f"recsolve, {_done(way, found)}")
        book[way] = [inf] * _TRIALS
    result, seconds = _timed(lambda: _own(module, x, hx))
    book["module"].append(seconds)
    why = "sweeps do not converge" if inf in book["sweeps"] else "it is faster, or not known yet"
    return RunResult(result[0], result[1], f"the module's own loop: {why}")


def _next(book: dict[str, list[float]]) -> tuple[str, bool]:
    """Return the way to take, and whether all have been tried."""
    fewest = min(book, key=lambda way: len(book[way]))
    if len(book[fewest]) < _TRIALS:
        return fewest, False
    return min(book, key=lambda way: min(book[way]) * (1.0 if _WAYS[way] is None else _LOSES)), True


def _done(way: str, found: LayersSolution) -> str:
    """Return in words what a solve has done."""
    return "+".join(str(solution.nit) for solution in found.solutions) + " sweeps" if way == "sweeps" else "a walk"


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
