"""The kinds of problems, by name, and how one of them is tried."""

from __future__ import annotations

import traceback
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from . import deriving, judge, keeping, scanning, solving

KINDS = {
    f.__name__: f
    for f in (
        solving.solve, solving.function, solving.long, solving.subclass, solving.trust, solving.huge,
        deriving.gradient, deriving.own, deriving.smooth, deriving.declared,
        scanning.scan, scanning.matrices, scanning.misfits,
        keeping.stale, keeping.scalars, keeping.impure, keeping.pickles, keeping.threads,
    )
}  # fmt: skip
SHARES = {"solve": 6, "function": 4, "gradient": 4, "trust": 3, "scan": 3}  # the others 1 each


@dataclass
class Outcome:
    """What came of one seed: counts of what was judged, and the failure if there was one."""

    kind: str
    seed: int
    compiled: bool
    counts: Counter = field(default_factory=Counter)
    category: str = ""
    text: str = ""
    tried: bool = True

    def command(self, backend=None):
        """The command that tries this very problem again."""
        more = (" --compiled 1" if self.compiled else " --compiled 0") + (f" --backend {backend}" if backend else "")
        return f"python -m tests.fuzz --kind {self.kind} --seeds {self.seed}{more}"


def tried(kind, seed, compiled=False, backend=None):
    """Try the problem of a seed; an exception that nobody expected is an outcome too."""
    outcome = Outcome(kind, seed, compiled)
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed])
    judge.COUNTS.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            KINDS[kind](rng, compiled, backend)
    except judge.Nothing:
        outcome.tried = False
    except judge.Wrong as wrong:
        outcome.category, outcome.text = wrong.category, str(wrong)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome.category = "exception"
        outcome.text = f"exception: {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    outcome.counts = Counter(judge.COUNTS)
    return outcome
