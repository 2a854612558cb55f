"""Small calls of every kind on a GPU, for the tools that watch a device: run it as

    compute-sanitizer --tool memcheck --error-exitcode 9 python tests/on_gpu.py

and with racecheck, initcheck and synccheck in its place, of ``scans`` or ``solves`` alone where these are named.
Results are compared with those of the host.
"""

from __future__ import annotations

import sys
from itertools import product

import gallery
import numpy as np
from cuda_host.__main__ import problems

import recsolve as rs
from recsolve.jacobians import Jacobian
from recsolve.kernels.gpu.scan.scan_cuda import scan
from recsolve.kernels.gpu.scan.variants import REGIMES
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.reference import scan_numpy

CELLS = ("gru", "diagonal"), ("lstm", "diagonal"), ("gru", "dense"), ("elman_relu", "heads")
METHODS = ("auto", "newton")
KINDS = ("float32", True), ("float64", False)  # with resets, and without


def solves() -> int:
    """Solve in all ways and go back; return how many solves there were."""
    import cupy

    count = 0
    for (name, mixing), (dtype, resets) in product(CELLS, KINDS):
        reset = np.random.default_rng(0).random((300, 2)) < 0.02 if resets else None
        host = gallery.recurrence(name, mixing, T=300, dtype=np.dtype(dtype), reset=reset)
        x = cupy.asarray(host.x)
        rec = host.cell.to("cupy").recurrence(x, reset=None if reset is None else cupy.asarray(reset))
        reference = rs.solve(host, method="sequential")
        c = np.random.default_rng(1).standard_normal(host.shape).astype(dtype)
        wanted = rs.adjoint(reference, states=c)
        for method in METHODS:
            with rs.backend("cuda"):
                found = rs.solve(rec, method=method)
                g = rs.adjoint(found, states=cupy.asarray(c))
            assert found.success, found
            np.testing.assert_allclose(found.states.get(), reference.states, atol=2 * gallery.bound(reference))
            np.testing.assert_allclose(g.initial.get(), wanted.initial, rtol=1e-3, atol=1e-3)
            sys.stdout.write(f"{name}, {mixing}, {dtype}, {method}\n")
            count += 1
    return count


def scans() -> int:
    """Run scans of every monoid in every regime; return how many there were."""
    import cupy

    def put(x):
        if isinstance(x, Jacobian):
            return type(x)(cupy.asarray(x.data), x.layout)
        return None if x is None else cupy.asarray(x)

    count = 0
    for name, elements, initial, reset in problems():
        monoid, elements = MONOIDS[name], tuple(elements)
        expected = scan_numpy.scan(monoid, monoid.prepare(elements), initial=initial, reset=reset)
        for regime in REGIMES:
            prepared = monoid.prepare(tuple(put(e) for e in elements))
            y = scan(monoid, prepared, initial=put(initial), reset=put(reset), regime=regime)
            np.testing.assert_allclose(y.get(), expected, rtol=1e-9, atol=1e-9)
            count += 1
    return count


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        for what in sys.argv[1:] or ("scans", "solves"):
            sys.stdout.write(f"{ {'scans': scans, 'solves': solves}[what]() } {what}\n")
