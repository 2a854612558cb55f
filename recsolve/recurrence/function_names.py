"""What a user's function takes and gives by name: parameters, and the components of a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsolve.base.arrays import Array, namespace
from recsolve.base.links import follow
from recsolve.base.named_state import NamedState
from recsolve.base.names import Names
from recsolve.recurrence.function_tangent import StateTangent, Tangent
from recsolve.symbolic.dual import value_of


def parameters_by_name(parameters: Any) -> dict[str, Any]:
    """Return the parameters that were given, by name; what ``None`` gives is empty too."""
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters is {type(parameters).__name__}; wanted a dict of arrays by name")
    taken = sorted(name for name in parameters if not isinstance(name, str) or name in dir(Names))
    if taken:
        raise ValueError(f"parameters has the names {taken}; wanted strings that are no methods of mappings")
    return dict(parameters)


def arrays_of(initial: Any, state: Any) -> dict[str, Any]:
    """Return the arrays of h[0] by the names that messages use."""
    if not isinstance(initial, Mapping):
        if state is not None and not isinstance(state, NamedState):
            raise TypeError(f"initial is {type(initial).__name__}; wanted a dict of components, as state is")
        return {"initial": initial}
    if state is None:
        raise ValueError(
            f"initial has components {tuple(initial)}, and state is not given; wanted state={{name: axes}}"
        )
    return {f"initial[{name!r}]": x for name, x in initial.items()}


def described(state: Any, start: list[Array], initial: Any) -> tuple[NamedState | None, Array]:
    """Return how states hold named components, if they do, and h[0] as one array."""
    if state is None or not isinstance(initial, Mapping):
        if state is not None and start[0].shape[-1:] != (state.size,):
            raise ValueError(f"initial has shape {tuple(start[0].shape)}; wanted (*batch, {state.size}), or components")
        return state, start[0]
    given = dict(zip(initial, start, strict=True))
    named, batch = NamedState.of(
        state.axes if isinstance(state, NamedState) else state, {name: tuple(x.shape) for name, x in given.items()}
    )
    if isinstance(state, NamedState):
        if named.shapes != state.shapes:
            raise ValueError(f"initial has components of shapes {named.shapes}; wanted {state.shapes}")
        named = state
    parts = [given[name] for name in named.axes]

    def flat(tensors: list[Any]) -> Any:
        import torch

        return torch.cat([x.reshape((*batch, -1)) for x in tensors], dim=-1)

    return named, follow(named.join(parts, batch), parts, flat)


def components(state: NamedState, x: Any) -> Names:
    """Return the components of flat states; those of a tangent take their directions along."""
    if type(x) not in (Tangent, StateTangent) or not x.partials:
        return state.split(x)
    values, directions = state.split(x.value), state.split(x.directions)
    return Names({name: type(x).seeded(v, directions[name]) for name, v in values.items()}, "component")


def joined(state: NamedState, parts: list[Any], lead: tuple[int, ...], dtype: Any) -> Any:
    """Return components (*lead, *shape) as a flat state; of tangents, their directions too."""
    state.check(parts, lead, dtype)
    values = state.join([value_of(x) for x in parts], lead)
    count = next((len(x.directions) for x in parts if isinstance(x, Tangent) and x.partials), 0)
    if not count:
        return values
    xp = namespace(values)
    still = xp.zeros((), dtype)
    moved = [x.directions if isinstance(x, Tangent) and x.partials else still for x in parts]
    full = [xp.broadcast_to(d, (count, *x.shape)) for d, x in zip(moved, parts, strict=True)]
    return Tangent.seeded(values, state.join(full, (count, *lead)))
