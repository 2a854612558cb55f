"""What users give of a function beside it, and what it returns: how that is read, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import DISCRETE, FLOATS, Array, common_dtype, is_discrete
from recsolve.base.layout import Layout
from recsolve.base.links import to_linked
from recsolve.base.named_state import DTYPE_ADVICE, NamedState
from recsolve.jacobians import (
    Banded,
    Block,
    Diagonal,
    Identity,
    Jacobian,
    LaneDense,
    LowRank,
    PermutationDiagonal,
    Scalar,
    Zero,
)
from recsolve.jacobians.pattern import Pattern
from recsolve.recurrence.forms import ByPairs, Form, read_structure
from recsolve.symbolic.dual import value_of

STRUCTURES: dict[str, type[Jacobian]] = {
    "zero": Zero,
    "identity": Identity,
    "scalar": Scalar,
    "diagonal": Diagonal,
    "block": Block,
    "permutation_diagonal": PermutationDiagonal,
    "low_rank": LowRank,
    "banded": Banded,
    "heads": LaneDense,
    "dense": LaneDense,
}
_EVENT_AXES = {"block": 2, "heads": 2}
_NO_UNITS = ("zero", "identity", "scalar", "diagonal", "none")  # whose event may be one number

# The methods that need f alone; of these, those that compare and copy states, and do no arithmetic with them.
COPYING = frozenset(("sequential", "jacobi", "gauss_seidel", "parareal", "windowed", "chain", "auto"))
OF_F = COPYING | {"picard", "anderson", "triangular_anderson", "broyden", "diagonal_broyden"}

# Words in the errors of NumPy and torch for common mistakes, and the advice to add.
_ADVICE = {
    "read-only": "writes into its arguments; return new arrays, h * 2 not h *= 2",
    "truth value": "branches in Python on a value, but gets all steps at once; write np.where(condition, a, b)",
    "Python scalar": "uses a function of one number; take NumPy's, np.tanh not math.tanh",
    "must be Tensor": "uses torch, but gets NumPy arrays (CuPy arrays for CUDA tensors); use NumPy's functions",
}


def check_functions(f: Any, jacobian: Any, readout: Any, *, weighted: bool) -> None:
    """Raise TypeError unless these, where they are given, take a state and inputs, and parameters if there are some."""
    taken = "(h_prev, u_t, p)" if weighted else "(h_prev, u_t)"
    check_callable("f", f, f"f{taken}")
    if jacobian is not None:
        check_callable("jacobian", jacobian, f"jacobian{taken}")
    if readout is not None:
        check_callable("readout", readout, f"readout{taken.replace('h_prev', 'h')}")


def natives(initial: Mapping[str, Any], others: Mapping[str, Any], *, free: bool) -> dict[str, Array]:
    """Return arrays as native ones, by name, checked to be of one dtype.

    Where ``free``, that is asked of h[0] alone, of any dtype; else integers and bools may stand beside real numbers.
    """
    numbers: Sequence[np.dtype[Any]] = (*FLOATS, *DISCRETE)  # tokens, say, may stand beside probabilities
    native = {name: to_linked(x, name, numbers if free else FLOATS) for name, x in initial.items()}
    native |= {name: to_linked(x, name, numbers) for name, x in others.items()}
    common_dtype({name: x for name, x in native.items() if name in initial or not (free or is_discrete(x.dtype))})
    return native


def advice_on(error: Exception) -> str | None:
    """Return what to say of an error of the user's function, if it is a common mistake."""
    return next((text for words, text in _ADVICE.items() if words in str(error)), None)


def checked(out: Any, wanted: tuple[int, ...], dtype: Any) -> Any:
    """Return what f returned, which is to be an array of this shape and dtype."""
    if type(out) is np.ndarray and out.shape == wanted and out.dtype == dtype:
        return out
    if not hasattr(value_of(out), "dtype"):
        raise TypeError(f"f returned {type(out).__name__}; wanted an array like h_prev")
    shape = tuple(np.shape(value_of(out)))
    if shape != wanted:
        raise ValueError(f"f returned shape {shape}; wanted that of h_prev, {wanted}")
    if out.dtype != dtype:
        raise TypeError(f"f returned dtype {out.dtype}; wanted {dtype}, {DTYPE_ADVICE}")
    return out


def layout_of(structure: str, initial: Array) -> tuple[Layout, tuple[int, ...]]:
    """Split the shape of h[0] into batch and the event that the structure reads."""
    axes = _EVENT_AXES.get(structure, 1)
    if initial.ndim == 0 and structure in _NO_UNITS:
        return Layout(units=None), ()
    if initial.ndim < axes:
        wanted = {"block": "(*batch, k, n)", "heads": "(*batch, H, n)"}.get(structure, "(*batch, n)")
        raise ValueError(f"initial has shape {initial.shape}; wanted {wanted} for structure {structure!r}")
    batch, event = initial.shape[: initial.ndim - axes], initial.shape[initial.ndim - axes :]
    if structure == "block":
        if event[0] < 2:
            raise ValueError(f"initial has shape {initial.shape}; wanted (*batch, k, n) with k >= 2 for 'block'")
        return Layout(components=event[0], units=event[1]), batch
    return Layout(lanes=tuple(event[:-1]), units=event[-1]), batch


def leaves_of(inputs: Any) -> dict[str, Any]:
    """Name every array of the inputs; a tuple or a dict holds several, anything else is one."""
    if inputs is None:
        return {}
    if isinstance(inputs, dict):
        return {f"inputs[{name!r}]": x for name, x in inputs.items()}
    if isinstance(inputs, tuple):
        return {f"inputs[{i}]": x for i, x in enumerate(inputs)}
    return {"inputs": inputs}


def declared_structure(structure: Any, state: NamedState | None, units: int, given: bool) -> tuple[str, Form | None]:
    """Return the name of a declared structure and what is declared beside the name, which may need a ``jacobian``."""
    if isinstance(structure, Mapping):
        if state is None:
            raise ValueError("structure is declared by pairs of components, and state is not given")
        structure = ByPairs(state.size, Pattern(state, structure))
    if isinstance(structure, ByPairs):
        if given:
            raise ValueError("jacobian is given with a structure by pairs of components; wanted one of them")
        return "pairs", structure
    name, form = read_structure(structure, units)
    if name not in (*STRUCTURES, "none"):
        raise ValueError(f"structure is {structure!r}; wanted one of {', '.join(STRUCTURES)}, none")
    if form is not None and not given and form.seeds() is None:
        raise ValueError(f"structure is {structure!r} without jacobian; wanted one that returns {form.returned}")
    if state is not None and name in _EVENT_AXES:
        raise ValueError(f"structure is {structure!r}; wanted one by pairs of components, or one of a flat state")
    return name, form


def length_of(inputs: dict[str, Array], length: int | None) -> int:
    lengths = {name: x.shape[0] if x.ndim else None for name, x in inputs.items()}
    if None in lengths.values():
        raise ValueError(f"inputs have lengths {lengths}; wanted arrays with time as their first axis")
    if not lengths:
        if not isinstance(length, (int, np.integer)) or length < 0:
            raise ValueError(f"length is {length!r}; wanted an integer T >= 0, since there are no inputs")
        return length
    if len(set(lengths.values())) > 1 or (length is not None and length not in lengths.values()):
        seen = lengths if length is None else {**lengths, "length": length}
        raise ValueError(f"lengths along time (the first axis) differ: {seen}")
    return int(next(iter(lengths.values())) or 0)
