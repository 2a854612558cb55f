"""Walks of cells whose mixings couple units, and scans of their Jacobians, by blocks of CUDA threads on the host."""

from dataclasses import replace

import cuda_host
import gallery
import numpy as np
import pytest
from gallery import weighted
from test_fused_mixing import COUPLED, drives, mixed
from test_stages_cuda_host import kinds, order, same

import recsolve as rs
from recsolve.jacobians.factored import Call, Factored
from recsolve.kernels.affine_scan import affine_scan, reverse_solve
from recsolve.kernels.codegen.cuda_walk import walk_cell
from recsolve.kernels.gpu import block_walk
from recsolve.kernels.gpu.cell.mixing_walk import MixingWalkCuda
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.reference import scan_numpy
from recsolve.mixings import Dense, Heads
from recsolve.recurrence.engine import FusedWalk
from recsolve.symbolic.tracing import trace_cell

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
# How blocks may share the work: blocks of a cluster, threads of a row, sequences of a block, weights in registers.
WAYS = [(1, 4, 1, True), (1, 2, 4, True), (3, 4, 2, True), (4, 1, 2, False)]


@pytest.fixture(scope="module")
def host():
    return cuda_host.Host(workers=4, processors=4)


@pytest.fixture
def forced(monkeypatch):
    """Return a function that forces a way to share the work."""

    def force(blocks, width, sequences, resident):
        def plan(cell, number, cut, units, *device):
            return block_walk.Plan(cell, number, cut, units, min(blocks, units), width, sequences, resident, 3)

        monkeypatch.setattr(block_walk, "plan", plan)

    return force


def walked(host, rec):
    """Return the states of a recurrence, walked by blocks."""
    states = rec.empty()
    FusedWalk(MixingWalkCuda(trace_cell(rec.cell.cell, kinds(rec), rec.ties), host), rec).walk(states)
    return states


def agree(host, rec):
    same(walked(host, rec), gallery.loop(rec), rec.dtype)


def recurrences(cell, seed=0):
    """Yield recurrences of a cell: lengths, batches, initial states, resets, both memory orders."""
    rng = np.random.default_rng(seed)
    for T, batch in [(33, (3,)), (6, ()), (1, (1,)), (9, (2, 2)), (0, (2,)), (5, (0,))]:
        drive = drives(cell, T, batch, cell.dtype)
        initial = rng.uniform(0.5, 1.5, (*batch, *cell.layout.event)).astype(cell.dtype)
        yield order(cell.recurrence(drive=drive, initial=initial), T == 33)
        if T > 1:
            yield cell.recurrence(drive=drive, reset=rng.random((T, *batch)) < 0.3)


@needs_compiler
@pytest.mark.parametrize("mixing", ["dense", "heads"])
@pytest.mark.parametrize(("place", "name"), list(enumerate(COUPLED)))
def test_walks_follow_the_loop(host, place, name, mixing):
    dtype = np.float64 if place % 2 else np.float32
    for rec in recurrences(weighted(name, mixing, units=20, dtype=dtype, gain=0.9)):
        agree(host, rec)


@needs_compiler
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_walks_follow_the_loop_however_blocks_share_the_work(host, forced, way):
    forced(*way)
    for cell in (mixed(13, np.float32), weighted("lstm", "heads", units=20)):
        found = list(recurrences(cell))
        for rec in found[:2] + found[6:7]:
            agree(host, rec)
