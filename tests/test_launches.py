"""What is launched on a device: the grid, block and shared memory that the kernels were planned and emulated with."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_scan_numba import AFFINE, affine

import recsolve as rs
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.gpu import device as machine_cuda
from recsolve.kernels.gpu.cell import elementwise
from recsolve.kernels.gpu.cell.stages import ElementwiseCuda
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.gpu.scan.variants import REGIMES
from recsolve.kernels.starts import Starts
from recsolve.symbolic.tracing import trace_cell, trace_pullback

SHARED = 227 * 1024  # bytes that a block may ask for
DEVICE = SimpleNamespace(attributes={"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": SHARED})


@pytest.fixture
def launched(monkeypatch):
    """Put in CuPy's place what compiles nothing and notes every launch: (kernel, grid, block, shared, data)."""
    launches = []

    class Kernel:
        max_dynamic_shared_size_bytes = 48 * 1024

        def __init__(self, expression):
            self.expression = expression

        def __call__(self, grid, block, arguments, *, shared_mem=0):
            assert shared_mem <= self.max_dynamic_shared_size_bytes
            (problem,) = arguments
            launches.append((self.expression, grid, block, shared_mem, problem.tobytes()))

    class RawModule:
        def __init__(self, *, code, options, name_expressions):
            assert "-std=c++17" in options
            self.names = name_expressions

        def get_function(self, name):
            assert name in self.names
            return Kernel(name)

    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(RawModule=RawModule))
    return launches


def on_numpy(kind):
    """A device that is asked to work on NumPy arrays, and notes what it is asked for."""

    class Asked(kind):
        kind = "numpy"

        def __init__(self):
            super().__init__(DEVICE)
            self.asked = []

        def launch(self, *asked):
            self.asked.append((*asked[:-1], asked[-1].tobytes()))
            super().launch(*asked)

    return Asked()


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("kind", "k"), [(Diagonal, 1), (Block, 3)])
def test_scans(launched, regime, kind, k):
    machine = on_numpy(scan_cuda.Cuda)
    elements = affine(kind, 5000, np.float32, np.random.default_rng(0), k, units=40)
    scan_cuda.scan(AFFINE, elements, machine=machine, regime=regime)
    wanted = [(v.expression, (blocks,), (v.threads,), shared, p) for v, blocks, shared, p in machine.asked]
    assert launched == wanted
    assert len(wanted) == (3 if regime == "segments" else 1)
    for (_, _, (threads,), shared, _), (v, *_) in zip(launched, machine.asked, strict=True):
        assert threads % 32 == 0
        assert threads >= 64
        assert (shared == 0) == (v.regime == "registers")


@pytest.mark.parametrize("regime", ["walk", "windows"])
def test_fused_solves(launched, regime):
    machine, cell = on_numpy(elementwise.Cuda), rs.cells.GRU
    kernels = elementwise.FusedCuda.of(trace_cell(cell), trace_pullback(cell), machine)
    inputs = [np.zeros((4000, 2, 5), np.float32)] * 3 + [np.zeros(5, np.float32)] * 4
    state = np.zeros((2, 5), np.float32)
    kernels.solve(inputs, np.zeros((4000, 2, 5), np.float32), 1, Starts(state, state, None), (0, 1e-6), regime=regime)
    wanted = [(k.expression, (blocks,), (32 * k.warps,), k.shared, p) for _, k, blocks, p in machine.asked]
    assert launched == wanted
    assert len(wanted) > 2  # segments, and what repairs them
    assert len({p for *_, p in launched}) == len(wanted)  # each is told its own pass, though they share a structure


def test_stages(launched):
    """Blocks of 256 threads, as the kernels are bounded for, and enough of them for every number."""
    machine = on_numpy(machine_cuda.Cuda)
    program, n = trace_cell(rs.cells.GRU), 1000
    x = np.zeros((300, 2, n), np.float32)
    inputs = [x] * 3 + [np.zeros(n, np.float32)] * 4
    ElementwiseCuda(program, machine).evaluate(inputs, x, np.empty_like(x), 1)
    ((_, name, blocks, problem),) = machine.asked
    assert launched == [(name, (blocks,), (256,), 4 * machine_cuda.REPORT, problem)]
    assert blocks * 256 >= 2 * n


MANY = 1 << 31


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (scan_cuda.Cuda, (None, MANY, 0)),
        (elementwise.Cuda, ("", None, MANY)),
        (machine_cuda.Cuda, ("", "", MANY)),
    ],
)
def test_too_many_blocks_are_refused(launched, kind, arguments):
    with pytest.raises(ValueError, match="wanted fewer than 2\\^31"):
        kind(DEVICE).launch(*arguments, np.zeros(1))
    assert not launched
