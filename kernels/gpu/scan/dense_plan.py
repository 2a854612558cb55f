"""How a scan of matrices of up to 32 rows is launched: a warp walks through time for one matrix or a few small ones."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np

from recsolve.kernels.gpu.scan.maps import cuda_map
from recsolve.kernels.gpu.scan.scan_plan import Plan, Scan
from recsolve.kernels.gpu.scan.variants import STORAGE, Variant
from recsolve.kernels.gpu.views import LANES, problem

_AHEAD = 24 << 10  # bytes of a warp that are under way, roughly
_DEPTHS = (4, 16)  # steps of which the numbers are in shared memory, at least and at most


def is_dense(monoid: str, rows: int) -> bool:
    """Return whether matrices of a monoid have more rows than one thread holds."""
    return cuda_map(monoid).dense(rows)


@lru_cache(maxsize=1024)
def dense_plan(scan: Scan) -> Plan:
    """Return how a scan is launched."""
    filled = problem(scan.steps, scan.sizes, dict(scan.arrays))
    v = dense_variant(scan.monoid, scan.parts, scan.dtype, scan.cut, _vector(scan, filled[0]))
    blocks = ceil(int(filled[0]["lanes"]) / _matrices(v.parts))
    return Plan(v, v.launch(blocks, _shared(v), filled.view(np.int64)))


def dense_variant(monoid: str, rows: int, dtype: str, cut: bool, vector: int) -> Variant:
    """Return the kernel for matrices of so many rows, of which ``vector`` contiguous numbers are copied at once."""
    own = STORAGE[dtype].bytes
    least, most = _DEPTHS
    depth = max(least, min(_AHEAD // (rows * rows * own * _matrices(rows)), most))
    return Variant("dense", monoid, rows, dtype, cut, LANES, depth, 0, vector)


def _vector(scan: Scan, p: Any) -> int:
    """Return how many numbers of a row can be copied at once."""
    count, matrix = dense_vector(scan.dtype), p["in0"]
    others = [matrix["time"], matrix["row"], *matrix["lane"], scan.parts]
    fits = scan.aligned and matrix["column"] == 1 and not any(stride % count for stride in others)
    return count if fits else 1


def dense_vector(dtype: str) -> int:
    """Return how many numbers of a row are copied at once where they lie well."""
    return max(16 // STORAGE[dtype].bytes, 1) if STORAGE[dtype].bytes >= 4 else 2


def _matrices(rows: int) -> int:
    """Return the matrices of a warp."""
    return LANES // max(8, 1 << (rows - 1).bit_length())


def _shared(v: Variant) -> int:
    """Return the bytes of shared memory of a warp, as in cuda/scan/dense.cuh."""
    eighths = ceil(v.parts / 8) * 8
    pitch = v.parts + v.vector if v.vector > 1 else v.parts | 1
    slot = ceil(v.parts * pitch / 8) * 8 + eighths
    own, number = v.storage.bytes, v.storage.number_bytes
    return _matrices(v.parts) * (2 * eighths * number + v.run * (slot * own + 4))
