"""What is launched on a device: a module in CuPy's place computes nothing and notes what it is asked for."""

import sys
from ctypes import c_void_p, string_at
from types import ModuleType, SimpleNamespace

import gallery
import numpy as np
import pytest
from test_scan_numba import AFFINE, affine

import recsolve as rs
from recsolve.jacobians import Block, Diagonal, Identity
from recsolve.kernels.codegen.cuda_stages import sweep_cell
from recsolve.kernels.gpu import device
from recsolve.kernels.gpu.cell.fused_solve import FusedCuda
from recsolve.kernels.gpu.cell.mixing_walk import MixingWalkCuda
from recsolve.kernels.gpu.cell.stage_launches import REPORT, ElementwiseCuda
from recsolve.kernels.gpu.cell.sweeps import SweepsCuda
from recsolve.kernels.gpu.device import LITTLE, SHARED, Cuda, Launch
from recsolve.kernels.gpu.scan import scan_cuda, scan_plan
from recsolve.kernels.gpu.scan.variants import REGIMES
from recsolve.kernels.starts import Starts
from recsolve.recurrence.sweep_engine import given
from recsolve.symbolic.tracing import trace_cell, trace_pullback

DEFAULT = 48 << 10  # bytes of shared memory that a block may have unless it asks for more


class Gpu:
    """A device; the last that was entered is the current one, where arrays are made."""

    current, made = [], []
    compute_capability = "90"

    def __init__(self, number=0):
        self.id = number
        self.attributes = {"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": SHARED}

    def __enter__(self):
        Gpu.current.append(self.id)

    def __exit__(self, *_):
        Gpu.current.pop()


class Array(np.ndarray):
    """NumPy's memory as a CuPy array."""

    __module__ = "cupy"
    device = None

    def __array_finalize__(self, like):
        self.device = like.device if isinstance(like, Array) else Gpu(Gpu.current[-1])

    def get(self):
        return np.asarray(self)

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data, memset_async=lambda value, size: np.ndarray.fill(self, value))


def on_gpu(x, number=1):
    """Return a copy on a device."""
    with Gpu(number):
        return np.array(x).view(Array)


class Kernel:
    max_dynamic_shared_size_bytes, preferred_shared_memory_carveout = DEFAULT, -1

    def __init__(self, launches, name):
        self.launches, self.name = launches, name
        self.kernel = SimpleNamespace(ptr=self)

    def launch(self, grid, block, shared, problem):
        assert grid[1:] == block[1:] == (1, 1)
        assert 0 <= shared <= self.max_dynamic_shared_size_bytes
        assert (self.preferred_shared_memory_carveout == 100) == (shared > LITTLE)
        self.launches.append((self.name, grid[:1], block[:1], shared, problem, Gpu.current[-1]))


class Driver:
    """Reads the structure that a kernel is given where its arguments say that it is."""

    def __init__(self):
        self.sizes = {}  # by address

    def noting(self, prepared):
        def noted(machine, launch):
            self.sizes[launch.problem.ctypes.data] = launch.problem.nbytes
            return prepared(machine, launch)

        return noted

    def launchKernel(self, kernel, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra):
        assert stream == extra == 0
        at = c_void_p.from_address(arguments).value
        kernel.launch((gx, gy, gz), (bx, by, bz), shared, string_at(at, self.sizes[at]))


@pytest.fixture
def launched(monkeypatch):
    """Put a module in CuPy's place; return what it notes: (kernel, grid, block, shared, data, device) and products."""
    launches, cupy, driver = [], ModuleType("cupy"), Driver()
    monkeypatch.setattr(Cuda, "prepared", driver.noting(Cuda.prepared))

    class RawModule:
        def __init__(self, *, code, options, name_expressions):
            assert "-std=c++17" in options
            assert ("-fmad=false" in options) == ("struct Problem" not in code)  # cells, not scans
            assert "#include" not in code
            self.names = name_expressions

        def get_function(self, name):
            assert name in self.names
            return Kernel(launches, name)

    class Stream:
        def __init__(self, *, non_blocking=False):
            assert non_blocking
            self.ptr = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def begin_capture(self):
            self.begun = len(launches)

        def end_capture(self):
            captured = launches[self.begun :]
            del launches[self.begun :]
            return SimpleNamespace(launch=lambda: launches.extend(captured))

    def making(name):
        def make(x, *args, **kwargs):
            Gpu.made.append(Gpu.current[-1])
            function = getattr(np, name.replace("empty", "zeros"))  # what nothing computes is not looked at as it is
            return function(np.asarray(x) if name == "empty_like" else x, *args, **kwargs).view(Array)

        return make

    for name in ("empty", "zeros", "ones", "empty_like", "concatenate"):
        setattr(cupy, name, making(name))
    cupy.ascontiguousarray = lambda x: x if x.flags.c_contiguous else x.copy()
    cupy.broadcast_to = lambda x, shape: np.broadcast_to(x, shape, subok=True)
    cupy.RawModule, cupy.ndarray = RawModule, Array
    runtime = SimpleNamespace(memcpyAsync=lambda *_: None, memcpyDeviceToHost=2, getDevice=lambda: Gpu.current[-1])
    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    pinned = type("Pinned", (bytearray,), {"ptr": 0})
    modules = {
        "cupy.cuda": {
            "Stream": Stream,
            "get_current_stream": lambda: SimpleNamespace(ptr=0),
            "driver": driver,
            "runtime": runtime,
            "Event": lambda disable_timing: event,
            "alloc_pinned_memory": pinned,
            "cublas": SimpleNamespace(gemmStridedBatchedEx=lambda *given: launches.append(("product", given[-2]))),
        },
        "cupy.cuda.device": {"get_cublas_handle": lambda: "handle"},
    }
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    cupy.cuda = sys.modules["cupy.cuda"]
    monkeypatch.setattr(device, "_DEVICES", {})
    monkeypatch.setattr(Gpu, "current", [0])
    monkeypatch.setattr(Gpu, "made", [])
    return launches


class Noted(Cuda):
    """A device that works on NumPy arrays, and notes its launches."""

    kind = "numpy"

    def __init__(self):
        super().__init__(Gpu())
        self.asked = []

    def launch(self, launch):
        one = launch
        problem = one.problem.tobytes()
        self.asked.append((one.kernel, (one.blocks,), (one.threads,), one.shared, problem, Gpu.current[-1]))
        super().launch(launch)

    def clear(self, report, size=None):
        report.view(np.uint8)[:size] = 0


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("kind", "k"), [(Diagonal, 1), (Block, 3)])
def test_scans(launched, regime, kind, k):
    machine = Noted()
    elements = affine(kind, 5000, np.float32, np.random.default_rng(0), k, units=40)
    scan_cuda.scan(AFFINE, elements, machine=machine, regime=regime)
    assert launched == machine.asked
    assert len(launched) == 1
    for name, _, (threads,), shared, *_ in launched:
        assert threads % 32 == 0
        assert threads >= 64
        assert (shared == 0) == ("registers" in name)


def test_what_shapes_strides_and_dtypes_decide_is_decided_once(launched):
    """Other arrays like those of before are given other addresses, and nothing else."""
    A, b = affine(Diagonal, 5000, np.float32, np.random.default_rng(0), 1, units=40)
    kept, held = (scan_cuda._described, scan_plan.plan), []
    for regime in (None, *REGIMES):
        seen = []
        for _ in range(3):
            held.append((on_gpu(A.data), on_gpu(b)))
            if regime is None:
                rs.scan("affine", held[-1])
            else:
                scan_cuda.scan(AFFINE, AFFINE.prepare(held[-1]), regime=regime)
            seen.append([one.cache_info().misses for one in kept])
        assert seen[1] == seen[2]
        assert len({(name, grid, shared) for name, grid, _, shared, *_ in launched[-3:]}) == 1
        assert len({problem for *_, problem, _ in launched[-3:]}) == 3


def gru(machine=None):
    """The kernels of a GRU, and its inputs, states, and chain."""
    kernels = FusedCuda.of(trace_cell(rs.cells.GRU), trace_pullback(rs.cells.GRU), machine)
    inputs = [np.zeros((4000, 2, 5), np.float32)] * 3 + [np.zeros(5, np.float32)] * 4
    state = np.zeros((2, 5), np.float32)
    return kernels, inputs, np.zeros((4000, 2, 5), np.float32), Starts(state, state, None)


@pytest.mark.parametrize("segments", [1, 7, 200])
def test_fused_solves(launched, segments):
    """One launch, and one more for the verdict; what has been seen before is launched anew for other memory."""
    machine = Noted()
    kernels, inputs, states, chain = gru(machine)
    outcomes = [kernels.solve(inputs, states, 1, chain, (0, 1e-6), segments=segments) for _ in range(2)]
    assert launched == machine.asked
    assert len(launched) == len({problem for *_, problem, _ in launched}) == 2  # each has a ticket of its own
    assert len(kernels._known) == 1
    for _ in range(2):
        assert not outcomes[1].verdict().complete  # nothing was computed
    assert launched == machine.asked
    assert [one[0].partition("<")[0].partition("_")[2] for one in launched] == [
        *["segments" if segments > 1 else "lanes"] * 2,
        "states",
    ]
    assert launched[2][-2] == launched[1][-2]
    assert all(threads % 32 == 0 and threads >= 64 for _, _, (threads,), *_ in launched)


def test_solves_that_lie_otherwise_are_laid_out_anew(launched):
    """Shapes, strides, dtypes, alignment and settings: each is planned once."""
    machine = Noted()
    kernels, inputs, states, chain = gru(machine)
    solve = kernels.solve
    other = np.zeros((2, 4000, 5), np.float32).transpose(1, 0, 2)
    shifted = np.zeros(4000 * 10 + 1, np.float32)[1:].reshape(4000, 2, 5)
    odd = np.zeros(4 * 40000 + 1, np.uint8)[1:].view(np.float32).reshape(4000, 2, 5)
    for i, drives in enumerate((inputs, [other, *inputs[1:]], [shifted, *inputs[1:]])):
        for _ in range(2):
            solve(drives, states, 1, chain, (0, 1e-6))
        assert len(kernels._known) == i + 1
    solve([odd, *inputs[1:]], states, 1, chain, (0, 1e-6))  # copied
    solve(inputs, states, 1, chain, (0, 0))
    solve(inputs, states, 1, chain._replace(initial=chain.initial.astype(np.float64)), (0, 1e-6))
    solve(inputs, states, 1, chain._replace(reset=np.zeros((4000, 2), bool)), (0, 1e-6))
    assert len({problem for *_, problem, _ in launched}) == len(launched) == 10


def test_stages(launched):
    """Blocks of 256 threads, as the kernels are bounded for, and enough of them for every number."""
    machine, n = Noted(), 1000
    x = np.zeros((300, 2, n), np.float32)
    inputs = [x] * 3 + [np.zeros(n, np.float32)] * 4
    ElementwiseCuda(trace_cell(rs.cells.GRU), machine).evaluate(inputs, x, np.empty_like(x), 1)
    ((_, (blocks,), threads, shared, *_),) = launched
    assert launched == machine.asked
    assert (threads, shared) == ((256,), 4 * REPORT)
    assert blocks * 256 >= 2 * n


def test_everything_happens_on_the_device_of_the_arrays(launched):
    """Kernels are launched there and arrays made there, also where another device is the current one."""
    A, b = affine(Diagonal, 5000, np.float32, np.random.default_rng(0), 1, units=40)
    elements = Diagonal(on_gpu(A.data), A.layout), on_gpu(b)
    for matrices in (elements[0], Identity(elements[1], A.layout)):
        for regime in REGIMES[:3]:
            assert scan_cuda.scan(AFFINE, (matrices, elements[1]), regime=regime).device.id == 1
    assert scan_cuda.planned(AFFINE, elements) in REGIMES
    kernels, inputs, states, chain = gru()
    inputs, states, chain = [on_gpu(x) for x in inputs], on_gpu(states), Starts(*map(on_gpu, chain[:2]), None)
    outcome = kernels.solve(inputs, states, 1, chain, (0, 1e-6))
    adjoint, drives, constants, initial = kernels.adjoint(inputs, states, states, 1, chain)
    outcome.verdict()
    found = [outcome.sums(), adjoint, *drives, constants, initial]
    kernels.evaluate(inputs, states, on_gpu(states), 1)
    assert len(launched) > 9
    assert {where for *_, where in launched} == {x.device.id for x in found} == set(Gpu.made) == {1}
    assert list(device._DEVICES) == [1]
    assert Gpu.current == [0]


def test_sweeps(launched):
    """Products, a stage, a scan and an update: the first time by themselves, then as graphs."""
    rec = gallery.recurrence("gru", "dense", T=300, units=8, dtype=np.float32)
    cell = sweep_cell(trace_cell(rec.cell.cell, "dense"))
    asked = given(rec, cell)
    asked = type(asked)(
        drives=[on_gpu(x) for x in asked.drives],
        constants=[on_gpu(x) for x in asked.constants],
        weights={name: on_gpu(x) for name, x in asked.weights.items()},
        starts=Starts(*(None if x is None else on_gpu(x) for x in asked.starts)),
        shape=asked.shape,
        layout=asked.layout,
        like=on_gpu(asked.like),
    )
    states, moves, residual, _ = SweepsCuda(cell).solve(asked, (1e-5, 1e-5))
    assert (states.device.id, residual.device.id, moves) == (1, 1, 0)  # nothing was computed, so nothing fails the test
    names = [name.partition("<")[0].removeprefix("recsolve::") for name, *_ in launched]
    scan = next(name for name in names if name in REGIMES)
    sweep = ["product", "sweep_stage", scan, "sweep_update"]
    assert names == ["product", "product", "sweep_stage", *sweep, *sweep]  # of what starts are made from, and a guess
    assert [one[1] for one in launched if one[0] == "product"] == [68, 68, 77, 68]  # rough while nothing is known
    assert launched[4:7] == launched[8:]


@pytest.mark.parametrize(("name", "units", "blocks"), [("gru", 96, 1), ("lstm", 256, 8)])
def test_walks_by_blocks(launched, name, units, blocks):
    """One launch for all steps on the device of the arrays, of whole clusters where one block has too few registers."""
    walk = MixingWalkCuda(trace_cell(rs.cells.get(name), "dense"))
    k = walk.cell.components
    states = on_gpu(np.zeros((300, 3, *[k] * (k > 1), units), np.float32))
    inputs = [on_gpu(np.zeros((300, 3, units), np.float32))] * walk.cell.drives
    mixings = dict.fromkeys(walk.cell.mixings, on_gpu(np.zeros((units, units), np.float32)))
    start = on_gpu(np.zeros(states.shape[1:], np.float32))
    assert walk.takes(states, 1)
    walk.walk(inputs, mixings, states, 1, Starts(start, start, on_gpu(np.zeros((300, 3), bool))))
    ((kernel, grid, (threads,), *_, where),) = launched
    assert kernel.startswith("recsolve::walk_cluster<" if blocks > 1 else "recsolve::walk_block<")
    assert grid == (3 * blocks,)
    assert threads % 32 == 0
    assert where == 1
    half = on_gpu(states.astype(np.float16))
    assert not walk.takes(half, 1)
    with pytest.raises(ValueError, match="dtype float16; no kernel walks these"):
        walk.walk(inputs, mixings, half, 1, Starts(start, start, None))


def test_too_many_blocks_are_refused(launched):
    with pytest.raises(ValueError, match="a launch of 2147483648 blocks; wanted fewer than 2\\^31"):
        Cuda(Gpu()).launch(Launch("", "", (), 1 << 31, 32, 0, np.zeros(1)))
    assert not launched
