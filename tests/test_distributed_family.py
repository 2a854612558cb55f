"""Solvers of the family over ranks: those that sweep together step as on one device, the others take turns."""

import numpy as np
import pytest
from ranks import over

import recsolve as rs
from recsolve.distributed.ranks import ranks_of

SWEEP = {
    "newton": 1, "quasi_newton": 1, "chord": 1, "scaled_newton": 1, "clipped_newton": 1, "relaxed_newton": 1,
    "broyden": 1, "diagonal_broyden": 1, "jacobi": 1, "picard": 1, "anderson": 2, "triangular_anderson": 2,
}  # fmt: skip  # messages an iteration


def _drives(length=61, batch=(2,), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((length, *batch, 3)), rng.random((length, *batch)) < 0.03


def _network(u, reset, gain=0.9):
    W = gain * np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    return rs.Recurrence.from_function(
        lambda h, u: np.tanh(h @ W + u), inputs=u, reset=reset, initial=np.full(u.shape[1:], 0.1)
    )


def _sharded(group, lengths=None, **kwargs):
    u, reset = _drives(**kwargs)
    shared = rs.distributed.shard(u, group, lengths=lengths)
    return _network(shared, rs.distributed.shard(reset, group, lengths=lengths))


def _by_each(group, names, lengths):
    found = {}
    for name in names:
        rec, ranks = _sharded(group, lengths), ranks_of(group)
        before = ranks.messages
        sol = rs.solve(rec, method=name)
        found[name] = sol.way, sol.status, sol.nit, np.array(sol.residuals), ranks.messages - before, sol.output.local
    return found


@pytest.mark.parametrize("lengths", [(20, 0, 41), (1, 30, 30)])
def test_sweeps_of_all_ranks_are_the_iterations_of_one_device(lengths):
    ranks = over(3, _by_each, list(SWEEP), lengths)
    rec = _network(*_drives())
    for name, messages in SWEEP.items():
        one = rs.solve(rec, method=name)
        for found in ranks:
            way, status, nit, residuals, sent, _ = found[name]
            print(name, way, nit, one.nit, sent)
