"""Tables of the times measured on a GPU."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from recsolve.studies.draw.tables import console_of_output, print_table, table_of, three


def show_gpu_timings(timings: list[Any]) -> None:
    """Print the times of scans or solves beside the floor: the time of a copy of the bytes that must move."""
    solves = bool(timings) and hasattr(timings[0], "loop_error")
    columns = dict.fromkeys(("solve" if solves else "scan", "shape", "plan" if solves else "regime"), "left")
    names = [
        "floor us",
        "kernel us",
        "ratio",
        "call us",
        "error",
        *(["float32 loop", "sweeps", "redone"] if solves else []),
    ]
    table = table_of("solves" if solves else "scans", columns | dict.fromkeys(names, "right"))
    for timing in timings:
        micro = (three(1e6 * x) for x in (timing.floor, timing.kernel))
        row = [*micro, three(timing.kernel / timing.floor), three(1e6 * timing.call), _small(timing.error)]
        if solves:
            row += [_small(timing.loop_error), three(timing.sweeps) if timing.sweeps else "", str(timing.redone or "")]
        first = (timing.solve, timing.shape, timing.plan) if solves else (timing.scan, timing.shape, timing.regime)
        table.add_row(*map(escape, first), *row)
    console = console_of_output()
    print_table(console, table)
    console.print(
        "floor: a copy of the bytes that must move, in the same run; kernel: on the device, in a graph; call: from "
        "Python; error: against the loop in float64, relative to its largest number.",
        markup=False,
    )


def show_dense_timings(timings: list[Any]) -> None:
    """Print the times of torch's layers beside cuDNN."""
    columns = dict.fromkeys(("layer", "shape", "weights"), "left")
    names = ("cuDNN ms", "TF32 ms", "sweeps ms", "run ms", "ratio", "iterations", "error", "cuDNN's", "TF32's")
    table = table_of("layers of torch, float32", columns | dict.fromkeys(names, "right") | {"status": "left"})
    for t in timings:
        times = (three(1e3 * x) if x == x else "" for x in (t.cudnn, t.cudnn_tf32, t.sweeps, t.run))
        errors = (_small(x) for x in (t.error, t.cudnn_error, t.cudnn_tf32_error))
        ratio = f"{three(t.cudnn / t.run)}x" if t.run == t.run else ""
        table.add_row(t.cell, t.shape, t.weights, *times, ratio, str(t.iterations), *errors, t.status)
    console = console_of_output()
    print_table(console, table)
    console.print(
        "run: all of recsolve.run(method='quasi_newton'); sweeps: with the drive given; ratio: cuDNN's float32 time "
        "over that of run. error: against cuDNN in float64, relative to the largest output.",
        markup=False,
    )


def _small(x: float) -> str:
    return f"{x:.0e}" if x == x else ""
