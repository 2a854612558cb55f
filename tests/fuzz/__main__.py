"""Run the fuzz harness: ``python -m tests.fuzz --minutes 5 --seed 0``, or ``--kind solve --seeds 17`` for one again."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict

import numpy as np

from .kinds import KINDS, SHARES, tried

COLUMNS = ("false success", "wrong trust", "wrong answer", "wrong gradient", "exception")


def arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="only this kind (may be given again)")
    parser.add_argument("--backend", choices=["numpy", "numba", "auto"], help="this backend alone")
    parser.add_argument("--compiled", type=float, default=0.15, help="share of problems that compile a cell")
    parser.add_argument("--seeds", type=int, nargs="+", help="try these seeds and no others")
    return parser.parse_args()


def plan(options):
    """Yield (kind, seed, compiled) as long as there is time; the same for the same options."""
    names = options.kind or list(KINDS)
    if options.seeds:
        yield from ((kind, seed, options.compiled >= 1) for seed in options.seeds for kind in names)
        return
    weights = np.array([SHARES.get(name, 1) for name in names], float)
    ends, seed = time.monotonic() + 60 * options.minutes, options.seed
    while time.monotonic() < ends:
        rng = np.random.default_rng([1, seed])
        yield str(rng.choice(names, p=weights / weights.sum())), seed, bool(rng.random() < options.compiled)
        seed += 1


def main():
    options = arguments()
    counts, failures, began, tries = Counter(), defaultdict(Counter), time.monotonic(), Counter()
    for kind, seed, compiled in plan(options):
        outcome = tried(kind, seed, compiled, options.backend)
        tries[kind] += outcome.tried
        counts.update(outcome.counts)
        if outcome.category:
            failures[kind][outcome.category] += 1
            print(f"{outcome.command(options.backend)}\n    {outcome.text}", flush=True)  # noqa: T201
    table(tries, failures, counts, time.monotonic() - began, options)
    sys.exit(1 if failures else 0)


def table(tries, failures, counts, seconds, options):
    """Print what was tried and what failed, by kind."""
    total = sum(failures.values(), Counter())
    counted = ", ".join(f"{n} {k}" for k, n in sorted(counts.items()))
    print(f"\nseeds from {options.seed}, {seconds / 60:.1f} minutes: {counted}")  # noqa: T201
    print(f"{'kind':12} {'problems':>9} " + " ".join(f"{c:>14}" for c in (*COLUMNS, "other")))  # noqa: T201
    for kind, row in [*((k, failures.get(k, Counter())) for k in sorted(tries)), ("all", total)]:
        other = sum(row.values()) - sum(row[c] for c in COLUMNS)
        cells = " ".join(f"{n:14d}" for n in (*(row[c] for c in COLUMNS), other))
        print(f"{kind:12} {tries[kind] if kind != 'all' else sum(tries.values()):9d} {cells}")  # noqa: T201


if __name__ == "__main__":
    main()
