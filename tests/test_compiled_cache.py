"""Compiled code on disk: found again, never believed when it is damaged, and never in the way."""

import ast
import errno
import logging
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numba.core import event

import recsolve as rs
from recsolve.kernels.cpu.jit import decorators, disk, module_cache
from recsolve.kernels.gpu.modules import Kernels

ROOT = Path(__file__).parent.parent
SOURCE = """
from recsolve.kernels.cpu.jit.decorators import compiled
from recsolve.kernels.cpu.jit.prefetch import LINE

@compiled
def count(x):
    return x.size + LINE
"""
WANTED = 3 + 64


def compilations(dtype=np.float64):
    """Call a loop as a new process does; return how often it is compiled."""
    for title in [title for title in sys.modules if title.startswith("recsolve.generated.tiny")]:
        del sys.modules[title]
    with event.install_recorder("numba:compile") as recorded:
        assert module_cache.load(SOURCE, "tiny").count(np.ones(3, dtype)) == WANTED
    return sum(e.is_start for _, e in recorded.buffer)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a folder for compiled code that does not exist yet."""
    monkeypatch.setenv(disk.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(disk, "_failed", set())
    return tmp_path / "cache"


def temporary(cache):
    return sorted(path.name for path in cache.parent.glob("recsolve-*/*"))


def test_what_was_compiled_is_found(cache):
    assert [compilations() for _ in "12"] == [1, 0]
    (file,) = cache.iterdir()
    assert file.suffix == ".loop"
    assert [compilations(np.float32) for _ in "12"] == [1, 0]
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("name", ["", "x" * 300, "ψ" * 300, "../up", "a.b c\n"])
def test_any_name_will_do(cache, name):
    assert module_cache.load(SOURCE + f"# {name!r}", name).count(np.ones(3)) == WANTED
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:20], lambda b: b[:-1], lambda b: b"garbage" * 99,
                                    lambda b: b[:500] + bytes([b[500] ^ 1]) + b[501:]])  # fmt: skip
def test_a_damaged_file_is_made_again(cache, damage):
    compilations()
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert [compilations() for _ in "12"] == [1, 0]


def test_a_file_that_is_whole_and_cannot_be_loaded_is_made_again(cache):
    compilations()
    (file,) = cache.iterdir()
    for content in (b"no pickle", b"cno_module\nno_name\n.", decorators.dumps((1, 2)), decorators.dumps(1)):
        disk.write(file.name, content)
        assert [compilations() for _ in "12"] == [1, 0]


def test_code_is_not_found_by_another_signature(cache):
    """Should the name of a file ever be that of another signature, what lies in it says so."""
    compilations()
    (file,) = cache.iterdir()
    compilations(np.float32)
    (other,) = set(cache.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    assert compilations() == 1


@pytest.mark.parametrize("module", ["prefetch", "aliasing", "decorators"])
def test_a_change_of_what_is_compiled_into_a_loop_is_seen(cache, module, monkeypatch):
    compilations()
    loader = sys.modules[f"recsolve.kernels.cpu.jit.{module}"].__loader__
    text = loader.get_source(f"recsolve.kernels.cpu.jit.{module}")
    with monkeypatch.context() as changed:
        changed.setattr(loader, "get_source", lambda name: text + "\n# changed")
        decorators._sources.cache_clear()
        assert [compilations() for _ in "12"] == [1, 0]
    decorators._sources.cache_clear()
    assert compilations() == 0


@pytest.mark.parametrize("kind", ["a file", "under a file", "full", "not renamed"])
def test_where_nothing_can_be_written_a_temporary_folder_takes_its_place(cache, kind, monkeypatch, caplog):
    if kind == "a file":
        cache.write_text("in the way")
    elif kind == "under a file":
        cache.write_text("in the way")
        monkeypatch.setenv(disk.VARIABLE, str(cache / "deeper"))
    else:
        fail_below(cache, "write_bytes" if kind == "full" else "replace", monkeypatch)
    with caplog.at_level(logging.WARNING, logger="recsolve"):
        assert [compilations() for _ in "12"] == [1, 0]
        assert [compilations(np.float32) for _ in "12"] == [1, 0]
    assert len([r for r in caplog.messages if "temporary folder" in r]) == 1
    assert len(temporary(cache)) == 2
    assert cache.is_file() or not list(cache.iterdir())


def fail_below(folder, method, monkeypatch):
    """Let the disk be full for files in a folder."""
    original = getattr(Path, method)

    def failing(self, *args):
        if self.is_relative_to(folder):
            if method == "write_bytes":
                original(self, args[0][:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, *args)

    monkeypatch.setattr(Path, method, failing)


def test_where_no_folder_can_be_written_to_code_is_compiled_in_memory(cache, monkeypatch, caplog):
    fail_below(cache.parent, "write_bytes", monkeypatch)
    with caplog.at_level(logging.WARNING, logger="recsolve"):
        assert [compilations() for _ in "123"] == [1, 1, 1]
    assert len([r for r in caplog.messages if "cannot be kept" in r]) == 2
    assert not [path for path in cache.parent.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_to_is_read(cache, monkeypatch):
    compilations()
    fail_below(cache, "write_bytes", monkeypatch)
    assert compilations() == 0


def test_a_temporary_folder_of_another_user_is_not_believed(cache, monkeypatch):
    cache.write_text("in the way")
    assert [compilations() for _ in "12"] == [1, 0]
    (cache.parent / f"recsolve-{os.getuid()}").chmod(0o777)
    assert [compilations() for _ in "12"] == [1, 1]


@pytest.mark.parametrize("variable", ["", None])
def test_an_empty_name_is_none(variable, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(disk.VARIABLE, "") if variable == "" else monkeypatch.delenv(disk.VARIABLE, raising=False)
    assert disk.cache_directory() == tmp_path / "recsolve"
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert disk.cache_directory().is_absolute()
    monkeypatch.setenv(disk.VARIABLE, "~/there")
    assert disk.cache_directory() == Path("~/there").expanduser()


def test_the_current_folder_is_no_temporary_one(cache, monkeypatch):
    monkeypatch.chdir(cache.parent)
    cache.write_text("in the way")
    assert [compilations() for _ in "12"] == [1, 1]
    assert os.listdir() == ["cache"]


def run(code, cwd=None, **environment):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=cwd, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def compiled_files(folder):
    return {path for path in folder.rglob("*") if path.suffix in {".nbi", ".nbc", ".loop"} and path.is_file()}


THREADS = """
    import threading
    import numpy as np, recsolve as rs

    def step(s, W, u, p):
        return 0.5 * s.h + p.a * u.x

    cell = rs.Cell(step, state=("h",), output="h")
    cell = rs.WeightedCell(cell, {}, {"a": np.full(2, 0.5)}, None, 2)
    x = np.ones((5000, 2))
    barrier, found = threading.Barrier(8), []

    def solve():
        barrier.wait()
        with rs.backend("numba"):
            found.append(rs.solve(cell.recurrence(drive={"x": x}), method="sequential").states)

    workers = [threading.Thread(target=solve) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with rs.backend("numpy"):
        wanted = rs.solve(cell.recurrence(drive={"x": x}), method="sequential").states
    assert len(found) == 8
    assert all(np.array_equal(states, wanted) for states in found)
"""


def test_eight_threads_may_use_a_new_cell_first_and_files_lie_where_they_should(tmp_path):
    """The warning is the only output, and nothing is written beside the sources or into the current folder."""
    before, here = compiled_files(ROOT), tmp_path / "here"
    here.mkdir()
    places = {"RECSOLVE_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    output = run(THREADS, cwd=here, NUMBA_CACHE_DIR="", **places)
    assert "Error" not in output
    names = {path.name.partition("_")[0] for path in compiled_files(tmp_path / "cache")}
    assert names == {"step", "residual"}  # of the cell, and of the library
    assert compiled_files(ROOT) == before
    assert not list(here.iterdir())


WRITES = """
    import os, sys
    from pathlib import Path

    MADE = {"os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2}
    written = set()

    def note(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.add(os.path.realpath(os.fsdecode(args[0])))
        written.update(os.path.realpath(os.fsdecode(path)) for path in args[: MADE.get(event, 0)])

    sys.addaudithook(note)
    from recsolve.studies.command.cli import main

    sys.argv = ["recsolve", "compare", "--cell", "minmax", "--solvers", "sequential", "--out", "out"]
    try:
        main()
    finally:
        Path("written").write_text("\\n".join(sorted(written)))
"""


def test_a_comparison_writes_where_it_is_told_to(tmp_path):
    """With nothing compiled yet, every file that Python opens for writing lies in one of the folders named."""
    places = {name: tmp_path / name for name in ("RECSOLVE_CACHE", "TMPDIR", "MPLCONFIGDIR", "HOME")}
    for place in ("TMPDIR", "HOME"):
        places[place].mkdir()
    run(WRITES, cwd=tmp_path, PYTHONDONTWRITEBYTECODE="1", NUMBA_CACHE_DIR="", **{n: str(p) for n, p in places.items()})
    written = {Path(line) for line in (tmp_path / "written").read_text().splitlines()} - {Path(os.devnull)}
    allowed = (places["RECSOLVE_CACHE"], places["TMPDIR"], places["MPLCONFIGDIR"], tmp_path / "out")
    assert not [path for path in written if not any(path.is_relative_to(place) for place in allowed)]
    assert len(compiled_files(places["RECSOLVE_CACHE"])) > 2
    assert not [*places["TMPDIR"].iterdir(), *places["HOME"].iterdir()]  # only tried


def test_a_kernel_is_compiled_once_for_all_threads_and_anew_after_a_failure():
    kernels, made, barrier = Kernels(), [], threading.Barrier(8)

    def make():
        made.append(len(made))
        time.sleep(0.05)
        if len(made) == 1:
            raise RuntimeError("the compiler")
        return object()

    def ask(_):
        barrier.wait()
        with suppress(RuntimeError):
            return kernels.get("key", make)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert made == [0, 1]
    assert len(set(found) - {None}) == 1


def test_eight_processes_may_fill_a_new_folder(tmp_path):
    code = f"""
        import multiprocessing
        import numpy as np
        from recsolve.kernels.cpu.jit import decorators, module_cache

        def count(_):
            return module_cache.load({SOURCE!r}, "tiny").count(np.ones(3))

        with multiprocessing.get_context("fork").Pool(8) as pool:
            assert pool.map(count, range(8), chunksize=1) == [{WANTED}] * 8
        """
    run(code, RECSOLVE_CACHE=str(tmp_path / "cache"), TMPDIR=str(tmp_path))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".loop"]


def test_one_module_imports_numba():
    """It is pinned to the releases that were tried, for the sake of what is imported there."""
    files = [path for name in ("recsolve", "solvers", "kernels", "studies") for path in (ROOT / name).rglob("*.py")]
    imports = re.compile(r"^\s*(from|import) (numba|llvmlite)\b", re.MULTILINE)
    assert {path.name for path in files if imports.search(path.read_text(encoding="utf-8"))} == {"decorators.py"}


def copied_slices(function):
    """Return the lines of a function that assign to a slice something other than a number."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            sides = [side.elts if isinstance(side, ast.Tuple) else [side] for side in (*node.targets, node.value)]
            for to, what in zip(*sides, strict=False):  # of other lengths where a tuple is unpacked
                parts = ast.walk(to.slice) if isinstance(to, ast.Subscript) else ()
                if any(isinstance(part, ast.Slice) for part in parts) and not isinstance(what, ast.Constant):
                    yield node.lineno


def test_loops_copy_element_by_element():
    """For `x[:] = y` Numba compiles a message about shapes and, for it, strings: this takes longer than many loops."""
    decorators = {"compiled", "inlined", "called", "reordered"}
    seen = 0
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and decorators & {getattr(d, "id", "") for d in node.decorator_list}:
                seen += 1
                assert not [*copied_slices(node)], (path, node.name)
    assert seen > 50


def test_walks_of_all_cells_call_one_module_of_products_which_is_part_of_their_names_on_disk():
    from recsolve.kernels.cpu.cell.mixing import FusedMixing
    from recsolve.symbolic.tracing import trace_cell

    found = [FusedMixing(trace_cell(cell, "dense"), np.dtype(np.float64)) for cell in (rs.cells.GRU, rs.cells.Elman)]
    assert found[0].products is found[1].products is not found[0].loops
    for loops in (x.loops for x in found):
        source = loops.__loader__.get_source(loops.__name__)
        assert found[0].products.__name__ in decorators._imported(source)
        assert loops.multiply is found[0].products.multiply
