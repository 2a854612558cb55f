"""The CUDA headers: each alone, and what Python reads of them, built by g++."""

import subprocess
from pathlib import Path

import cuda_host
import pytest

import recsolve.kernels
from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.codegen.cuda_structures import constants, structure
from recsolve.kernels.gpu.views import AT, PROBLEM

FOLDER = Path(recsolve.kernels.__path__[0]) / "cuda"
COUNTS = {"IN": 0, "OUT": 2, "PARTS": 2, "DRIVES": 3, "CONSTANTS": 0, "WRITTEN": 2, "CALLS": 4}
STRUCTURES = [
    ("common/view", "View"),
    ("scan/problem", "Problem"),
    ("solve/problem", "Recurrence"),
    ("solve/sums", "SegmentSums"),
    ("stage/each", "Elementwise"),
    ("stage/sweep", "Sweep"),
    ("stage/sweep", "Update"),
    ("block/mixing_walk", "Walked"),
    ("ranks/message", "Message"),
    ("ranks/message", "Sum"),
    ("ranks/mailbox", "Mail"),
    ("ranks/carries", "Probe"),
    ("ranks/carries", "Fold"),
    ("ranks/carries", "Agreement"),
    ("ranks/joins", "Join"),
    ("ranks/joins", "Meeting"),
    ("ranks/joins", "Addition"),
]
TEMPLATES = ("Recurrence", "Elementwise", "Sweep", "Update", "Walked")
needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def checked(*units, flags=()):
    """Return what the compiler says of units, each of which comes after nothing but what CUDA has."""
    common = f"-I{cuda_host.precompiled().parent}"
    command = ["g++", *cuda_host.FLAGS, common, f"-I{cuda_host.HERE}", f"-I{FOLDER}", "-fsyntax-only", *flags]
    return subprocess.run([*command, "-include", "common.hpp", "-x", "c++", *units], capture_output=True, text=True)


@needs_compiler
def test_every_header_includes_what_it_uses():
    found = sorted(FOLDER.glob("*/*.cuh"))
    assert len(found) > 20
    done = checked(*map(str, found), flags=["-w"])  # "#pragma once in main file"
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_structures_have_the_sizes_and_places_that_python_reads(tmp_path):
    members = ", ".join(f"{name} = {count}" for name, count in COUNTS.items())
    lines = [
        headers(*dict.fromkeys(header for header, _ in STRUCTURES)),
        f"struct Counts {{ static constexpr int {members}; }};",
    ]
    for header, name in STRUCTURES:
        found = structure(header, name, **COUNTS)
        kind = f"recsolve::{name}{'<Counts>' if name in TEMPLATES else ''}"
        lines.append(f"using Seen{name} = {kind};\nstatic_assert(sizeof({kind}) == {found.itemsize});")
        lines += [f"static_assert(offsetof(Seen{name}, {field}) == {found.fields[field][1]});" for field in found.names]
    for array in ("in", "by_time_in"):
        for i in range(constants("scan/problem")["INPUTS"]):
            name = f"{array.removesuffix('in')}in{i}"
            lines.append(f"static_assert(offsetof(SeenProblem, {array}[{i}]) == {8 * AT[name]});")
    names = {name: value for header, _ in STRUCTURES for name, value in constants(header).items()}
    lines += [f"static_assert(recsolve::{name} == {value});" for name, value in names.items()]
    unit = tmp_path / "structures.cpp"
    unit.write_text("\n".join(lines))
    done = checked(str(unit))
    assert done.returncode == 0, done.stderr
    assert PROBLEM.itemsize == structure("scan/problem", "Problem").itemsize
    assert names.keys() >= {"AXES", "LANES", "INPUTS", "FIELDS", "THREADS", "REPORTED", "NOT_FINITE"}


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match=r"scan/problem.cuh has no structure Problems"):
        structure("scan/problem", "Problems")
    with pytest.raises(ValueError, match="has 'unsigned short bits'; wanted fields of long long"):
        structure("common/numbers", "Half")
    with pytest.raises(KeyError, match="DRIVES"):
        structure("solve/problem", "Recurrence")
