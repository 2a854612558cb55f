"""The loop of a user's function: steps are checked as cheaply as can be, and the reference says what is wrong.

What a step does beside calling f takes as long as a small f. So the loop is written out for what f takes and returns,
so many inputs in their container and so many components, over views that are made for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, freeze
from recsolve.base.names import Names, empty_names
from recsolve.recurrence.engine import Engine
from recsolve.symbolic.constants import state_dtype

if TYPE_CHECKING:
    from recsolve.recurrence.function import FunctionRecurrence

# It says whether it has come to the end; else the reference has to look at the step that it took last.
_LOOP = """
def loop(f, parameters, steps, states, before, keys, names, shapes, dtype):
    [{states}], [{keys}], [{names}], [{shapes}] = states, keys, names, shapes
    try:
        for {rows}, {seen}, {inputs}{reset} in steps:
            {restart}
            {call}
            if {differs}:
                return False
            {store}
    except (ValueError, TypeError):
        return False
    return True
"""
_RESTART = """if reset is not None:
                [{states}] = before(reset)"""
_CALL = "out = f({state}, {drive}{parameters})"
# Equal dtypes are nearly always one object, but not when they have been pickled.
_DIFFERS = "type(o{0}) is not ndarray or o{0}.shape != w{0} or (o{0}.dtype is not dtype and o{0}.dtype != dtype)"
_NAMED = """state = empty_names("component")
            held = state.__dict__
            {held}
            {call}
            if type(out) is dict and len(out) == {count}:
                {gotten}
            elif type(out) is tuple and len(out) == {count}:
                [{outs}] = out
            else:
                return False"""


class FunctionEngine(Engine):
    """The engine of a function whose recurrence takes its steps as they are defined, from ``f``."""

    recurrence: FunctionRecurrence

    def _follow(self, states: Array, start: int) -> None:
        rec = self.recurrence
        if type(states) is not np.ndarray or start == rec.length:
            super()._follow(states, start)
            return
        inputs, names = rec.contain(list(range(len(rec.inputs)))), () if rec.state is None else tuple(rec.state.axes)
        loop = _loop(type(inputs).__name__, len(rec.inputs), len(names), rec.takes_parameters, rec.reset is not None)
        rows, seen = (self._parts(x[start:, None]) for x in (states, freeze(states)))
        steps = zip(*rows, *seen, *(x[start:, None] for x in rec.inputs), *self._resets(start), strict=True)
        keys, shapes = tuple(inputs) if type(inputs) is dict else (), [row.shape[1:] for row in rows]

        def before(t: int) -> tuple[Array, ...]:
            return self._parts(freeze(self._before(states, t)[None]))

        with np.errstate(all="ignore"), state_dtype(rec.dtype):
            parameters = Names(rec.parameters, "parameter")
            ended = loop(rec.f, parameters, steps, before(start), before, keys, names, shapes, rec.dtype)
        if not ended:
            left = sum(1 for _ in steps)
            super()._follow(states, rec.length - 1 - left)

    def _resets(self, start: int) -> list[list[int | None]]:
        """Return, where there are resets, for every step its number if any sequence is reset there, else None."""
        reset = self.recurrence.reset
        if reset is None:
            return []
        some: list[bool] = reset[start:].reshape(len(reset) - start, -1).any(axis=1).tolist()  # type: ignore[assignment]
        return [[t if there else None for t, there in enumerate(some, start)]]

    def _parts(self, x: Array) -> tuple[Array, ...]:
        """Return views of flat states, one for every component."""
        named = self.recurrence.state
        return (x,) if named is None else tuple(named.split(x).values())


def attempt(f: Callable[..., Any], shape: tuple[int, ...], dtype: Any, *given: Any) -> Array | None:
    """Return what f gives, a NumPy array of this shape and dtype; None where the reference has to look at it."""
    try:
        out = f(*given)
    except (ValueError, TypeError):
        return None
    return out if type(out) is np.ndarray and out.shape == shape and out.dtype == dtype else None


@lru_cache(maxsize=256)
def _loop(container: str, inputs: int, components: int, parameters: bool, reset: bool) -> Callable[..., bool]:
    """Return the loop for so many inputs in a container and so many components; a flat state has none."""

    def listed(form: str, count: int, between: str = ", ") -> str:
        return between.join(form.format(i) for i in range(count))

    count, line = max(components, 1), "\n            "
    drive = f"({listed('u{},', inputs, ' ')})" if container == "tuple" else "u0" if inputs else "None"
    drive = f"{{{listed('k{0}: u{0}', inputs)}}}" if container == "dict" else drive
    given = ", parameters" if parameters else ""
    call = _CALL.format(state="state" if components else "s0", drive=drive, parameters=given)
    named = _NAMED.format(
        held=listed("held[n{0}] = s{0}", components, line),
        call=call,
        count=components,
        gotten=listed("o{0} = out.get(n{0})", components, "; "),
        outs=listed("o{}", components),
    )
    source = _LOOP.format(
        keys=listed("k{}", inputs if container == "dict" else 0),
        names=listed("n{}", components),
        shapes=listed("w{}", count),
        states=listed("s{}", count),
        rows=listed("r{}", count),
        seen=listed("q{}", count),
        inputs=listed("u{}, ", inputs, ""),
        reset="reset" if reset else "",
        restart=_RESTART.format(states=listed("s{}", count)) if reset else "",
        call=named if components else call.replace("out", "o0", 1),
        differs=listed(_DIFFERS, count, " or "),
        store=listed("r{0}[...] = o{0}", count, "; ") + "; " + listed("s{0} = q{0}", count, "; "),
    )
    made: dict[str, Any] = {"ndarray": np.ndarray, "empty_names": empty_names}
    exec(source, made)
    return made["loop"]  # type: ignore[no-any-return]
