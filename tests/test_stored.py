"""Solves and scans from disk to disk, window by window: those of the whole, and they go on after an end."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager

import gallery
import monoid_gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.base.progress import bar_of
from recsolve.distributed import scan_stored, solve_stored, stored_arrays, stored_run, stored_solve
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.solvers.choice import Candidate

EVERY = (1, 7, 20, 50)  # of 20 steps: each alone, some left over, all, more than there are
SOLVED = [cell for cell in gallery.CELLS if cell[1] == "diagonal" or cell[0] in ("gru", "lstm", "elman")]


@pytest.fixture(autouse=True)
def plain():
    """Nothing is compiled, so that all processes run the same loops."""
    with rs.backend("numpy"):
        yield


@pytest.fixture
def saved(tmp_path):
    """Save arrays by name; return their path."""

    def save(name, x):
        np.save(tmp_path / f"{name}.npy", x)
        return tmp_path / f"{name}.npy"

    return save


def halve(x, initial, reset=None):
    """A recurrence of one unit."""
    return rs.Recurrence.from_function(
        lambda h, u: 0.5 * np.sin(h) + u, inputs=x, initial=initial, structure="diagonal", reset=reset
    )


@pytest.mark.parametrize("cell", SOLVED, ids="-".join)
def test_a_cell_on_disk_is_the_solve_in_windows(cell, saved, tmp_path):
    every = EVERY[SOLVED.index(cell) % len(EVERY)]
    rng = np.random.default_rng(0)
    model = gallery.weighted(*cell, units=4, gain=1.5)
    x, reset = rng.standard_normal((20, 2, 3)), rng.random((20, 2)) < 0.2
    initial = rng.standard_normal((2, *model.layout.event))
    wanted = rs.solve(model.recurrence(x, initial=initial, reset=reset), method="newton", every=every)
    found = solve_stored(
        model, saved("x", x), out=tmp_path / "h.npy", every=every, initial=initial, reset=saved("reset", reset),
        method="newton",
    )  # fmt: skip
    np.testing.assert_allclose(found.output, wanted.output, atol=1e-12)
    np.testing.assert_allclose(found.ends, wanted.ends, atol=1e-12)
    np.testing.assert_array_equal(found.final, found.ends[-1])
    assert isinstance(found.output, np.memmap)
    assert (found.status, found.nit, found.converged_prefix) == (wanted.status, wanted.nit, 20)
    assert found.message == wanted.message
    assert [w.tolerance for w in found.windows] == [w.tolerance for w in wanted.windows]


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("T", [0, 1, 9])
def test_short_ones_and_readouts_of_all_dtypes(T, dtype, saved, tmp_path):
    cell = gallery.weighted("lstm", "dense", dtype=dtype)
    x = np.random.default_rng(0).standard_normal((T, cell.input_size)).astype(dtype)
    readout = lambda s, u, p: np.tanh(s.h).sum(axis=-1)  # noqa: E731
    found = solve_stored(cell, saved("x", x), out=tmp_path / "h.npy", every=4, readout=readout)
    wanted = rs.solve(cell.recurrence(x, readout=readout), every=4)
    assert found.success
    assert (found.output.dtype, found.output.shape) == (wanted.output.dtype, wanted.output.shape)
    np.testing.assert_allclose(found.output, wanted.output, atol=100 * np.finfo(dtype).eps)
    np.testing.assert_allclose(found.final, wanted.final, atol=100 * np.finfo(dtype).eps)
    assert found.ends.shape == wanted.ends.shape
    assert repr(found).startswith("StoredSolution")


def test_numbers_of_numpy_are_numbers(saved, tmp_path):
    """Of the arguments that a journal holds."""
    cell = gallery.weighted("lstm", "dense")
    x = saved("x", np.ones((9, cell.input_size)))
    for _ in range(2):  # the second time from the journal
        found = solve_stored(cell, x, out=tmp_path / "h.npy", every=np.int64(4), tol=np.float32(1e-3))
        assert (found.success, len(found.windows)) == (True, 3)
        assert scan_stored("addition", (x,), out=tmp_path / "y.npy", every=np.int32(4))[-1, 0] == 9


def test_the_size_of_the_states_is_that_of_the_whole(saved, tmp_path):
    """The default test counts in it, so that windows of another size are tested as the whole is."""
    x = np.full((400, 1), 1e-12)
    x[200:] = 1e-3
    found = solve_stored(halve, saved("x", x), out=tmp_path / "h.npy", every=20, initial=np.zeros(1), method="newton")
    wanted = rs.solve(halve(x, np.zeros(1)), method="newton", every=20)
    assert {w.tolerance.unit for w in wanted.windows} == {halve(x, np.zeros(1)).state_scale} != {1.0}
    assert [w.tolerance for w in found.windows] == [w.tolerance for w in wanted.windows]


def test_functions_with_named_states_and_ragged_cells(saved, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 2, 3))

    def make(x, initial):
        return rs.Recurrence.from_function(
            lambda s, u, p: {"S": 0.9 * s.S + u[..., :, None] * p.w, "m": np.tanh(0.5 * s.m + u[..., 0])},
            inputs=x, state={"S": ("k", "v"), "m": ()}, initial=initial, parameters={"w": np.ones(2)},
            structure={("S", "S"): "diagonal", ("m", "m"): "diagonal"},
        )  # fmt: skip

    initial = {"S": np.zeros((2, 3, 2)), "m": np.ones(2)}
    found = solve_stored(make, saved("x", x), out=tmp_path / "h.npy", every=8, initial=initial, method="newton")
    np.testing.assert_allclose(found.output, rs.solve(make(x, initial), every=8).output, atol=1e-12)

    def memory(s, W, u, p):
        h = np.tanh(W.h(s.h) + np.einsum("...kv,...k->...v", s.C, u.k))
        return {"C": p.decay * s.C + u.k[..., :, None] * s.h[..., None, :], "h": h}

    kind = rs.Cell(memory, state={"C": ("k", "v"), "h": ("v",)}, output="h", axes={"k": ("k",), "decay": ()})
    cell = kind.random(input_size=3, hidden_size={"k": 2, "v": 4}, rng=0)
    found = solve_stored(cell, saved("x", x), out=tmp_path / "C.npy", every=8)
    np.testing.assert_allclose(found.output, rs.solve(cell.recurrence(x)).output, atol=1e-12)


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
def test_every_solver_solves_windows_and_its_records_say_all(method, saved, tmp_path):
    cell = gallery.weighted("elman", "diagonal")
    x = saved("x", np.random.default_rng(0).standard_normal((40, 2, cell.input_size)))
    found, again = (solve_stored(cell, x, out=tmp_path / "h.npy", every=16, method=method) for _ in range(2))
    assert found.success
    assert found.solver.name == ("sequential" if method == "auto" else method)
    np.testing.assert_allclose(found.output, gallery.loop(cell.recurrence(np.load(x))), atol=1e-12)
    assert (again.windows, again.message) == (found.windows, found.message)
    np.testing.assert_array_equal(again.ends, found.ends)


def test_resets_of_a_function_go_back_to_where_those_of_the_whole_do(saved, tmp_path):
    rng = np.random.default_rng(0)
    x, reset, initial = rng.standard_normal((30, 2, 1)), rng.random((30, 2)) < 0.2, rng.standard_normal((2, 1))
    found = solve_stored(halve, saved("x", x), out=tmp_path / "h.npy", every=7, initial=initial, reset=reset)
    np.testing.assert_allclose(found.output, gallery.loop(halve(x, initial, reset)), atol=1e-14)


@pytest.mark.parametrize("name", MONOIDS)
def test_scans_of_every_monoid_are_those_of_the_whole(name, saved, tmp_path):
    rng = np.random.default_rng(0)
    elements = monoid_gallery.elements(name, 20, (3,), rng, whole=True)
    paths = tuple(saved(f"e{i}", e) for i, e in enumerate(elements))
    initial = monoid_gallery.state(name, elements, rng)
    mask = rng.random(20) < 0.15
    for place, (every, reverse) in enumerate([(4, False), (7, True), (50, True)]):
        for reset in (None, mask):
            given = {"initial": initial, "reset": reset, "reverse": reverse}
            out = tmp_path / f"y{place}{reset is None}.npy"
            y = scan_stored(name, paths, out=out, every=every, **given)
            monoid_gallery.agree(name, y, rs.scan(name, elements, **given))
    if name not in monoid_gallery.RESTARTING:
        y = scan_stored(name, paths, out=tmp_path / "alone.npy", every=6, reset=mask)
        monoid_gallery.agree(name, y, rs.scan(name, elements, reset=mask))


def test_scans_of_halves_numbers_and_a_monoid_of_the_users(saved, tmp_path):
    rng = np.random.default_rng(0)
    b = rng.standard_normal((30, 2)).astype(np.float16)
    y = scan_stored("affine", (0.75, saved("b", b)), out=tmp_path / "y.npy", every=7)
    np.testing.assert_array_equal(y, rs.scan("affine", (0.75, b)))  # as the state between windows is not rounded
    assert y.dtype == np.float16
    y = scan_stored("affine", (np.full((1, 2), 0.5j), saved("c", b.astype(float))), out=tmp_path / "z.npy", every=7)
    np.testing.assert_array_equal(y, rs.scan("affine", (0.5j, b.astype(float))))

    class Largest(rs.Monoid):
        letters = ("x",)

        def act(self, e, h):
            return np.maximum(e[0], h)

        def compose(self, later, earlier):
            return (np.maximum(later[0], earlier[0]),)

        def identity(self, e):
            return (np.full_like(e[0], -np.inf),)

    c = b.astype(np.float32)
    y = scan_stored(Largest, (saved("c", c),), out=tmp_path / "m.npy", every=4, initial=np.zeros(2, np.float32))
    np.testing.assert_array_equal(y, np.maximum.accumulate(np.maximum(c, 0)))


@pytest.mark.parametrize("T", [0, 1])
def test_short_scans(T, saved, tmp_path):
    y = scan_stored("addition", (saved("b", np.ones((T, 2))),), out=tmp_path / "y.npy", initial=np.ones(2))
    np.testing.assert_array_equal(y, np.full((T, 2), 2.0))


def test_arrays_of_other_libraries(saved, tmp_path):
    x = np.random.default_rng(0).standard_normal((30, 1))
    truth = gallery.loop(halve(x, np.zeros(1)))
    given = {"every": 8, "initial": np.zeros(1), "method": "newton"}
    inputs = {
        "memmap": np.load(saved("x", x), mmap_mode="r"),
        "fortran": saved("f", np.asfortranarray(np.c_[x, x])[:, :1]),
    }
    inputs["bytes of another order"] = saved("o", x.astype(">f8"))
    h5py, xarray = pytest.importorskip("h5py"), pytest.importorskip("xarray")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        inputs["h5py"] = file.create_dataset("x", data=x, chunks=(8, 1))
        inputs["xarray"] = xarray.DataArray(x, dims=("time", "unit"))
        for name, array in inputs.items():
            found = solve_stored(halve, array, out=tmp_path / f"{name}.npy", **given)
            np.testing.assert_allclose(found.output, truth, atol=1e-14, err_msg=name)
        out = file.create_dataset("group/h", x.shape, float)
        assert solve_stored(halve, inputs["h5py"], out=out, **given).output is out
        np.testing.assert_allclose(out, truth, atol=1e-14)
        assert (tmp_path / "data.h5.group.h.journal").exists()
    mapped = np.lib.format.open_memmap(tmp_path / "map.npy", "w+", float, x.shape)
    solve_stored(halve, inputs["memmap"], out=mapped, **given)
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), truth, atol=1e-14)


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    x = np.random.default_rng(0).standard_normal((30, 1))
    source, out = (zarr.open(tmp_path / f"{n}.zarr", "w", shape=x.shape, chunks=(8, 1), dtype=float) for n in "xh")
    source[:] = x
    given = {"every": 8, "initial": np.zeros(1), "journal": tmp_path / "journal"}
    solve_stored(halve, source, out=out, **given)
    np.testing.assert_allclose(out[:], gallery.loop(halve(x, np.zeros(1))), atol=1e-14)


def test_memory_is_that_of_windows(saved, tmp_path):
    x = saved("x", np.random.default_rng(0).standard_normal((1 << 14, 8)))
    peaks = []
    for number, every in enumerate((1 << 9, 1 << 14)):
        tracemalloc.start()
        solve_stored(halve, x, out=tmp_path / f"h{number}.npy", every=every, initial=np.zeros(8), method="jacobi")
        scan_stored("addition", (x,), out=tmp_path / f"y{number}.npy", every=every)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    size = 1 << 20  # bytes of x
    assert peaks[0] < size / 2 < 3 * size < peaks[1]


class Ended(BaseException):
    """What ends a run from outside."""


@contextmanager
def ended_after(monkeypatch, count):
    """End the run when so many windows are recorded: before the next one, with its numbers on the disk already."""
    with monkeypatch.context() as patch:
        append = stored_run.Journal.append

        def appended(journal, record):
            if record["window"] >= count:
                raise Ended
            append(journal, record)

        patch.setattr(stored_run.Journal, "append", appended)
        with pytest.raises(Ended) as caught:
            yield
    assert f"; {count} of them are there" in caught.value.__notes__[0]
    assert "the same call goes on" in caught.value.__notes__[0]


def test_a_run_that_was_ended_goes_on_where_it_was(saved, tmp_path, monkeypatch):
    cell = gallery.weighted("gru", "diagonal", units=4)
    x = saved("x", np.random.default_rng(0).standard_normal((40, cell.input_size)))
    whole = solve_stored(cell, x, out=tmp_path / "whole.npy", every=8)
    read = []
    watched = stored_arrays.NpyFile.__getitem__
    for count in range(5):
        out = tmp_path / f"h{count}.npy"
        with ended_after(monkeypatch, count):
            solve_stored(cell, x, out=out, every=8)
        with monkeypatch.context() as patch:
            read.clear()
            patch.setattr(
                stored_arrays.NpyFile, "__getitem__", lambda self, steps: read.append(steps) or watched(self, steps)
            )
            found = solve_stored(cell, x, out=out, every=8)
        assert [s for s in read if s.stop - s.start == 8] == [slice(t, t + 8) for t in range(8 * count, 40, 8)]
        assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()
        np.testing.assert_array_equal(found.ends, whole.ends)
        assert found.message == whole.message
        assert found.solver == whole.solver


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_that_was_ended_goes_on(saved, tmp_path, monkeypatch, reverse):
    b = saved("b", np.random.default_rng(0).standard_normal((40, 3)))
    run = lambda out: scan_stored("affine", (0.9, b), out=tmp_path / out, every=7, reverse=reverse)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(stored_run, "flush", lambda place: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space") as caught:
            run("y.npy")
    assert f"in window {5 if reverse else 0} of 6" in caught.value.__notes__[0]
    np.testing.assert_array_equal(run("y.npy"), run("whole.npy"))


def test_what_auto_took_is_taken_again(saved, tmp_path, monkeypatch):
    chunks = Candidate(rs.solvers.GaussSeidel(chunk=4), "gauss_seidel in chunks of 4", 6, 0.0)
    chosen = rs.Choice([chunks, Candidate(rs.solvers.Sequential(), "sequential", 0, 1.0)], [])
    asked = []
    monkeypatch.setattr(stored_solve, "choose", lambda rec, tolerance: asked.append(rec) or chosen)
    x = saved("x", np.random.default_rng(0).standard_normal((40, 1)))
    given = {"out": tmp_path / "h.npy", "every": 8, "initial": np.zeros(1)}
    with ended_after(monkeypatch, 2):
        solve_stored(halve, x, **given)
    found = solve_stored(halve, x, **given)
    assert found.solver == rs.solvers.GaussSeidel(chunk=4)
    assert len(asked) == 1
    assert found.success


KILLED = """
import sys, time, numpy as np, recsolve as rs
from recsolve.distributed import solve_stored
folder = sys.argv[1]
def make(x, initial):
    time.sleep(0.02)
    return rs.Recurrence.from_function(
        lambda h, u: 0.5 * np.sin(h) + u, inputs=x, initial=initial, structure="diagonal")
with rs.backend("numpy"):
    solve_stored(make, folder + "/x.npy", out=folder + "/h.npy", every=10, initial=np.zeros(1), method="newton")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise")
def test_a_run_that_was_killed_goes_on(saved, tmp_path):
    x = saved("x", np.random.default_rng(0).standard_normal((400, 1)))
    journal, out = tmp_path / "h.npy.journal", tmp_path / "h.npy"
    process = subprocess.Popen([sys.executable, "-P", "-c", KILLED, str(tmp_path)], stderr=subprocess.PIPE)
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 6):
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    before = journal.read_bytes().count(b"\n") - 1
    assert 5 <= before < 40
    with open(journal, "ab") as file:  # as of a line that was being written
        file.write(b'{"window": 6, "stat')
    given = {"every": 10, "initial": np.zeros(1), "method": "newton"}
    assert solve_stored(halve, x, out=out, **given).success
    solve_stored(halve, x, out=tmp_path / "whole.npy", **given)
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert [json.loads(line)["window"] for line in journal.read_text().splitlines()[1:]] == [*range(40)]


def changed_input(x, **given):
    data = np.load(x)
    data[0] += 1
    np.save(x, data)
    return {"x": x, **given}


OTHERS = {
    "numbers of x": lambda x, **given: changed_input(x, **given),
    "every is 5, was 8": lambda **given: {**given, "every": 5},
    "method is Jacobi": lambda **given: {**given, "method": "jacobi"},
    "tol is 0.001, was None": lambda **given: {**given, "tol": 1e-3},
    "initial": lambda **given: {**given, "initial": np.ones(1)},
    "f at some steps": lambda cell, **given: {**given, "cell": lambda x, h: halve(1.001 * x, h)},
    "reset": lambda cell, **given: {**given, "cell": halve, "reset": np.zeros(20, bool)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_journal_of_another_run_is_refused(what, saved, tmp_path, monkeypatch):
    given = {
        "cell": lambda x, h: halve(x, h), "x": saved("x", np.ones((20, 1))), "out": tmp_path / "h.npy", "every": 8,
        "initial": np.zeros(1), "method": "newton",
    }  # fmt: skip
    with ended_after(monkeypatch, 1):
        solve_stored(**given)
    data = (tmp_path / "h.npy").read_bytes()
    other = OTHERS[what](**given)
    with pytest.raises(ValueError, match=rf"is of another run: .*{what}.*resume=False"):
        solve_stored(**other)
    assert (tmp_path / "h.npy").read_bytes() == data
    assert solve_stored(**other, resume=False).success


def test_weights_that_have_changed_are_another_run(saved, tmp_path):
    cell = gallery.weighted("gru", "diagonal", units=4)
    x = saved("x", np.ones((20, cell.input_size)))
    solve_stored(cell, x, out=tmp_path / "h.npy", every=8)
    with pytest.raises(ValueError, match="weights are others"):
        solve_stored(cell.map(lambda w: w * (1 + 1e-12)), x, out=tmp_path / "h.npy", every=8)


def test_files_of_others_are_left_alone(saved, tmp_path):
    x, out = saved("x", np.ones((20, 1))), saved("h", np.arange(3.0))
    given = {"every": 8, "initial": np.zeros(1)}
    with pytest.raises(FileExistsError, match=r"no h.npy.journal to go on with; pass resume=False"):
        solve_stored(halve, x, out=out, **given)
    np.testing.assert_array_equal(np.load(out), np.arange(3.0))
    for source in (x, np.load(x, mmap_mode="r")):
        with pytest.raises(ValueError, match="which is an input"):
            solve_stored(halve, source, out=x, resume=False, **given)
    (tmp_path / "g.npy.journal").write_text("notes\n")
    with pytest.raises(ValueError, match="is no journal"):
        solve_stored(halve, x, out=tmp_path / "g.npy", **given)
    solve_stored(halve, x, out=out, resume=False, **given)
    out.unlink()
    with pytest.raises(FileNotFoundError, match="out cannot be read"):
        solve_stored(halve, x, out=out, **given)


def test_a_disk_without_room_is_found_out_before(saved, tmp_path, monkeypatch):
    def full(file, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored_arrays, "_reserve", full)
    with pytest.raises(OSError, match=r"out takes 1.6e-07 GB, of which .* are free: No space") as caught:
        solve_stored(halve, saved("x", np.ones((20, 1))), out=tmp_path / "h.npy", initial=np.zeros(1))
    assert caught.value.errno == 28
    assert not (tmp_path / "h.npy").exists()


def test_a_file_that_ends_early_says_where(saved, tmp_path):
    x = saved("x", np.ones((20, 1)))
    given = {"out": tmp_path / "h.npy", "every": 8, "initial": np.zeros(1)}

    def make(x, initial):
        if len(x) == 8:  # the first window: the input of the third is not read before it is solved
            os.truncate(place, 128 + 17 * 8)
        return halve(x, initial)

    place = x
    with pytest.raises(OSError, match=r"x.npy ends within steps 16 to 19") as caught:
        solve_stored(make, x, **given)
    assert "2 of them are there" in caught.value.__notes__[-1]
    saved("x", np.ones((20, 1)))
    assert solve_stored(halve, x, **given).success
    x.write_bytes(x.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"x is .*x.npy, which is no whole .npy file"):
        solve_stored(halve, x, out=tmp_path / "g.npy", initial=np.zeros(1))


def test_windows_that_do_not_converge_are_named(saved, tmp_path):
    x = np.zeros((40, 1))
    x[19] = np.nan
    given = {"every": 8, "initial": np.zeros(1), "method": "newton"}
    found = solve_stored(halve, saved("x", x), out=tmp_path / "h.npy", fallback="none", **given)
    wanted = rs.solve(halve(x, np.zeros(1)), method="newton", every=8)
    assert (found.status, found.message, found.success) == ("nonfinite", wanted.message, False)
    assert found.message.startswith("window 2 of 5, steps 16 to 23")
    assert found.converged_prefix == 19
    np.testing.assert_array_equal(found.output, wanted.output)
    with pytest.raises(rs.ConvergenceError) as caught:
        solve_stored(halve, tmp_path / "x.npy", out=tmp_path / "g.npy", fallback="raise", **given)
    assert caught.value.__notes__[0].startswith("in window 2 of 5")


def test_wrong_arguments(saved, tmp_path):
    x, cell = saved("x", np.ones((20, 3))), gallery.weighted("gru", "diagonal")
    given = {"cell": cell, "x": x, "out": tmp_path / "h.npy"}
    wrong = [
        ({"cell": 3}, TypeError, "cell is int; wanted a callable make"),
        ({"cell": halve(np.ones((3, 1)), np.zeros(1))}, TypeError, "cell is a recurrence"),
        ({"cell": lambda x, initial: x}, TypeError, r"make\(x, initial\) returned ndarray"),
        ({"x": [1.0]}, TypeError, "x is list; wanted the path"),
        ({"x": tmp_path / "none.npy"}, FileNotFoundError, "x cannot be read"),
        ({"x": saved("i", np.ones((20, 3), int))}, TypeError, "x has dtype int64"),
        ({"x": saved("s", np.float64(1))}, ValueError, r"x has shape \(\)"),
        ({"every": 0}, ValueError, "every is 0"),
        ({"method": "none"}, ValueError, "method"),
        ({"fallback": "no"}, ValueError, "fallback is 'no'"),
        ({"tol": 1e-3, "reset": np.zeros(3, bool)}, ValueError, r"reset has shape \(3,\)"),
        ({"out": tmp_path / "h.csv"}, ValueError, "wanted a name that ends in .npy"),
        ({"out": tmp_path / "no" / "h.npy"}, FileNotFoundError, "no folder"),
        ({"out": np.zeros((20, 3))}, ValueError, r"out has shape \(20, 3\).*wanted \(20, 8\)"),
        ({"out": np.zeros((20, 8))}, ValueError, "journal is None and out is ndarray"),
        ({"out": 3}, TypeError, "out is int"),
        ({"cell": lambda x, h: halve(x, h), "readout": np.tanh}, ValueError, "readout is given"),
    ]
    for change, error, message in wrong:
        with pytest.raises(error, match=message):
            solve_stored(**{**given, **change})
    assert not (tmp_path / "h.npy").exists()
    for elements, error, message in [
        (x, ValueError, "elements is"),
        ((0.5, x, x), ValueError, "elements of the affine monoid"),
        ((saved("short", np.ones((5, 3))), x), ValueError, "lengths along time"),
        ((rs.jacobians.Diagonal(np.ones((20, 3)), rs.Layout(units=3)), x), TypeError, r"elements\[0\] is a Diagonal"),
    ]:
        with pytest.raises(error, match=message):
            scan_stored("affine", elements, out=tmp_path / "y.npy")
    with pytest.raises(ValueError, match="needs a state to act on"):
        scan_stored("clamp", (x, x), out=tmp_path / "y.npy")


def test_a_function_that_makes_other_recurrences_than_it_is_asked_for(saved, tmp_path):
    x, whole = saved("x", np.ones((20, 1))), halve(np.ones((20, 1)), np.zeros(1))
    for make, message in [
        (lambda x, h: whole, r"returned FunctionRecurrence.*T=20.* for 8 steps; wanted T=8"),
        (lambda x, h: halve(np.repeat(x, len(x), axis=1), np.zeros(len(x))), "states as of the first ones"),
        (lambda x, h: rs.Recurrence.from_function(
            lambda h, u: h + u, inputs=x, initial=h, structure="diagonal", readout=lambda h, u: h.repeat(len(h), axis=1)
        ), r"output has shape \(8, 8\)"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            solve_stored(make, x, out=tmp_path / "h.npy", every=8, initial=np.zeros(1), resume=False)


def test_a_solution_is_pickled_and_finds_its_file_from_elsewhere(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved("x", np.ones((20, 1)))
    found = solve_stored(halve, "x.npy", out="h.npy", every=8, initial=np.zeros(1))
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(copy.output, found.output)
    assert (copy.message, copy.nit, len(copy.windows)) == (found.message, found.nit, 3)


def test_progress_is_told_in_the_log_or_in_a_bar(saved, tmp_path, monkeypatch, caplog):
    x = saved("x", np.ones((20, 1)))
    told = []

    @contextmanager
    def shown(name):
        yield lambda *said: told.append(said)

    with caplog.at_level("INFO", "recsolve"):
        solve_stored(halve, x, out=tmp_path / "h.npy", every=8, initial=np.zeros(1))
        monkeypatch.setattr(stored_run, "bar_of", shown)
        solve_stored(halve, x, out=tmp_path / "b.npy", every=8, initial=np.zeros(1))
        solve_stored(halve, x, out=tmp_path / "q.npy", every=8, initial=np.zeros(1), progress=False)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "h.npy: 3 of 3 windows" in line
    assert [said[:2] for said in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert stored_run.bar_of is not bar_of


def test_without_torch_and_without_rich_until_progress_is_shown():
    code = "import recsolve.distributed, sys; assert not {'torch', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.gpu
def test_a_cell_on_a_gpu_solves_windows_of_a_file(saved, tmp_path):
    cell = gallery.weighted("gru", "diagonal")
    x = np.random.default_rng(0).standard_normal((40, 2, cell.input_size))
    reset = np.arange(40) % 11 == 0
    found = solve_stored(cell.to("cupy"), saved("x", x), out=tmp_path / "h.npy", every=8, reset=reset)
    assert found.success
    np.testing.assert_allclose(found.output, rs.solve(cell.recurrence(x, reset=reset)).output, atol=1e-12)
