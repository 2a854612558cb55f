"""The loop of a user's function: steps are checked as cheaply as can be, and the reference says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsolve.base.arrays import Array, freeze
from recsolve.base.names import Names
from recsolve.recurrence.engine import Engine
from recsolve.symbolic.constants import state_dtype

if TYPE_CHECKING:
    from recsolve.recurrence.function import FunctionRecurrence


class FunctionEngine(Engine):
    """The engine of a function whose recurrence takes its steps as they are defined, from ``f``."""

    recurrence: FunctionRecurrence

    def _follow(self, states: Array, start: int) -> None:
        rec = self.recurrence
        if type(states) is not np.ndarray or rec.reset is not None or rec.state is not None:
            return super()._follow(states, start)
        f, inputs, contain, shown = rec.f, rec.inputs, rec.contain, freeze(states)
        given = (Names(rec.parameters, "parameter"),) if rec.takes_parameters else ()
        wanted, dtype, t = (1, *rec.shape[1:]), rec.dtype, start
        try:
            with np.errstate(all="ignore"), state_dtype(dtype):
                state = shown[start - 1 : start] if start else freeze(rec.initial)[None]
                rows = zip(*(x[start:, None] for x in (states, shown, *inputs)), strict=True)
                for t, (row, seen, *now) in enumerate(rows, start):  # noqa: B007 - where the loop has ended
                    out = f(state, contain(now), *given)
                    if type(out) is not np.ndarray or out.shape != wanted or out.dtype != dtype:
                        break
                    row[...], state = out, seen
                else:
                    return None
        except (ValueError, TypeError):
            pass
        return super()._follow(states, t)
