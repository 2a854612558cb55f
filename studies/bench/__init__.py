"""What `recsolve bench` times: a file for each kind of cases, one harness, one board of shapes, one table.

To time something else, write a file that ends in ``BENCHES = {machine: Bench(rows, table)}``, whose ``rows(config)``
yield dicts of texts and numbers, and enter it below.
"""

from __future__ import annotations

from importlib import import_module

from recsolve.studies.bench.harness import Bench

# Modules of this package by what they time, by the machine.
WHAT = {
    "cpu": {"scan": "scans", "solve": "solves", "graph": "graphs", "history": "histories", "train": "training"},
    "gpu": {"call": "calls_gpu", "scan": "scans", "solve": "solves_gpu", "dense": "layers_gpu", "train": "training"},
}


def get(machine: str, what: str) -> Bench:
    """Return what is timed on a machine, ``"cpu"`` or ``"gpu"``.

    Raises
    ------
    ValueError
        For an unknown ``what``; the message lists the known ones.
    """
    known = WHAT[machine]
    if what not in known:
        *first, last = known
        raise ValueError(f"--what is {what!r}; wanted {', '.join(first)} or {last}")
    bench: Bench = import_module(f"{__name__}.{known[what]}").BENCHES[machine]
    return bench
