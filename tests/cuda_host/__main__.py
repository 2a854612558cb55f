"""Run scans and solves with the kernels built under a sanitizer: ``cd tests && python -m cuda_host {address,thread}``.

Threads of blocks are OS threads here, and three blocks run at a time. A report of the sanitizer ends the process.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from cuda_host import Host
from cuda_host.solves import kernels_of
from recsolve.base.layout import Layout
from recsolve.base.tolerance import Tolerance
from recsolve.cells import GRU, LSTM
from recsolve.jacobians import Block, LaneDense
from recsolve.kernels.gpu.iterate import OF_PROPOSAL, Iterations
from recsolve.kernels.gpu.scan.scan_cuda import scan
from recsolve.kernels.gpu.scan.variants import REGIMES, WALKS
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.starts import Starts

PRELOADED = "RECSOLVE_SANITIZER_IS_LOADED"
OPTIONS = {
    "address": {"ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1"},
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1"},
}


def restart(sanitizer: str) -> int:
    """Run this again with the sanitizer's library, which must come before Python's own."""
    names = [f"lib{sanitizer[0]}san.so", "libstdc++.so"]
    found = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in names]
    environment = {**os.environ, **OPTIONS[sanitizer], "LD_PRELOAD": " ".join(found), PRELOADED: "1"}
    return subprocess.run([sys.executable, "-m", "cuda_host", sanitizer], env=environment, check=False).returncode


def problems():
    """Yield monoids, elements, initial states and resets; odd sizes, all that can overflow, both memory orders."""
    rng = np.random.default_rng(0)
    for T in (1, 33, 700):
        reset = rng.random((T, 2, 1)) < 0.02
        a, b = rng.uniform(-1, 1, (T, 2, 3)), rng.standard_normal((T, 2, 3))
        a[T // 2, 0, 0] = np.inf
        yield "affine", (a, b), None, None
        yield "affine", (np.moveaxis(np.moveaxis(x, 0, 2).copy(), 2, 0) for x in (a, b)), b[0], reset
        yield "clamp", (a, b), b[0], reset
        m, s, d = rng.standard_normal((3, T, 2, 3))
        yield "logsumexp", (m, s), None, reset[..., None]
        yield "saturating_add", (d, -abs(m), abs(s)), b[0], reset
        images = rng.integers(0, 20, (T, 2, 3, 20)).astype(np.uint8)
        yield "finite_map", (images,), np.zeros((2, 3), np.uint8), reset
        for n in (5, 32):
            lanes = LaneDense(rng.uniform(-1, 1, (min(T, 99), 3, n, n)) / n, Layout(units=n))
            yield "affine", (lanes, rng.standard_normal((min(T, 99), 3, n))), None, None
        layout = Layout(components=2, units=5)
        blocks = Block(rng.uniform(-0.5, 0.5, (T, 2, 2, 2, 5)), layout)
        yield "affine", (blocks, rng.standard_normal((T, 2, 2, 5))), None, reset[..., None]


def scans(machine):
    """Run all problems in all ways; return how many there were."""
    count = 0
    for name, elements, initial, reset in problems():
        monoid = MONOIDS[name]
        prepared = monoid.prepare(tuple(elements))
        with np.errstate(all="ignore"):
            expected = scan(monoid, prepared, initial=initial, reset=reset, regime="registers", machine=machine)
        for regime in REGIMES:
            for width in (None,) if regime in WALKS else (1, 4, 32):
                y = scan(monoid, prepared, initial=initial, reset=reset, regime=regime, width=width, machine=machine)
                np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
                count += 1
    return count


def iterations(machine):
    """Judge iterates and guard the next ones, of rows of one thread, one warp and several; return how many."""
    rng, count = np.random.default_rng(0), 0
    for T, layout in ((1, Layout(units=3)), (40, Layout(units=70)), (5, Layout(2, (2,), 300))):
        for lanes in (None, layout):
            starts = rng.random((T, 3)) < 0.1
            starts[0] = True
            values = rng.standard_normal((T, 3, *layout.event))
            states = np.where(rng.random((T, 3) + (1,) * len(layout.event)) < 0.8, values, 2 * values)
            launched = Iterations(starts, layout, values.dtype, machine)
            judged = launched.judge(states, values, Tolerance(1e-9, 1e-9, lanes), starts)
            front = launched.front(judged.converged | starts)
            np.testing.assert_array_equal(front[0], judged.leading)
            given = states, values, judged, (OF_PROPOSAL, 3 * values, None), 2.0, None, values[0], True
            next_states, _ = launched.guard(*given)
            np.testing.assert_array_equal(next_states[judged.leading], states[judged.leading])
            count += 1
    return count


def solves(machine):
    """Solve and go back in several blocks that wait for each other; return how many solves there were."""
    count = 0
    for cell, gain, bias, T in (
        (GRU, 0.5, 0.0, 400),
        (GRU, 1.0, 5.0, 400),
        (GRU, 6.0, 0.0, 160),
        (LSTM, 1.0, 3.0, 200),
    ):
        kernels, rng, k = kernels_of(cell, machine=machine), np.random.default_rng(0), len(cell.state)
        inputs = [rng.standard_normal((T, 2, 20)) + bias * (name in "zf") for name in cell.drives]
        inputs += [gain * rng.standard_normal(20) for _ in [*cell.mixings, *cell.parameters]]
        initial = rng.standard_normal((2, 20) if k == 1 else (2, k, 20))
        for reset in (None, rng.random((T, 2)) < 0.02):
            starts, found = Starts(initial, initial, reset), []
            for segments, sweeps in ((1, None), (20, None), (20, 1)):
                states = np.empty((T, *initial.shape))
                outcome = kernels.solve(inputs, states, 1, starts, (1e-9, 1e-9), segments=segments, sweeps=sweeps)
                told = outcome.verdict()
                assert told.complete
                assert told.met
                found.append(
                    (states, kernels.adjoint(inputs, states, np.ones_like(states), 1, starts, segments=segments))
                )
                count += 2
            if gain < 6:
                for states, (adjoint, *_) in found[1:]:
                    np.testing.assert_allclose(states, found[0][0], atol=1e-5)
                    np.testing.assert_allclose(adjoint, found[0][1][0], rtol=1e-4, atol=1e-4)
    return count


def main(sanitizer: str) -> None:
    host = Host(flags=("-g", f"-fsanitize={sanitizer}", "-DRECSOLVE_REAL_THREADS"))
    done = f"{solves(host)} solves, {iterations(host)} iterates and {scans(host)} scans"
    sys.stdout.write(f"{done}, nothing reported by the {sanitizer} sanitizer\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in OPTIONS:
        sys.exit(__doc__)
    if not os.environ.get(PRELOADED):
        sys.exit(restart(sys.argv[1]))
    main(sys.argv[1])
