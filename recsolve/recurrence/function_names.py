"""What a user's function takes and gives by name: parameters, and the components of a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from recsolve.base.arrays import Array
from recsolve.base.links import follow
from recsolve.base.named_state import NamedState
from recsolve.base.names import Names
from recsolve.recurrence.function_tangent import StateTangent, Tangent


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
    return named, packed(named, [given[name] for name in named.axes], batch)


def packed(state: NamedState, parts: Sequence[Array], batch: tuple[int, ...]) -> Array:
    """Return components, in order, as one flat state that gradients go back through."""

    def flat(tensors: list[Any]) -> Any:
        import torch

        shapes = zip(tensors, state.shapes.values(), strict=True)
        return torch.cat([x.reshape((*batch, prod(shape))) for x, shape in shapes], dim=-1)

    return follow(state.pack(tuple(parts), batch), parts, flat)


def components(state: NamedState, x: Any) -> Names:
    """Return the components of flat states; those of a tangent take their directions along."""
    if type(x) not in (Tangent, StateTangent) or not x.partials:
        return state.split(x)
    values, directions = state.split(x.value), state.split(x.directions)
    return Names({name: type(x).seeded(v, directions[name]) for name, v in values.items()}, "component")
