"""What the segments of a solve have added up, in one launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, address, namespace
from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.codegen.cuda_structures import constants, structure
from recsolve.kernels.gpu.device import Launch, Machine
from recsolve.kernels.gpu.views import LANES

_OPTIONS = ("-std=c++17", "-fmad=false")
_THREADS = constants("solve/sums")["SUM_THREADS"]
_NUMBERS = {"f": "float", "d": "double"}


def over_segments(sums: Array, dtype: np.dtype[Any], machine: Machine) -> Array:
    """Return sums over the first axis, added up in float64 and rounded to float32 if that is wanted.

    Parameters
    ----------
    sums : array of float64, shape (segments, ...)
        Contiguous.
    dtype : dtype
        Float32; others stay float64.
    machine : Machine
    """
    kind = dtype if dtype.char in _NUMBERS else sums.dtype
    if len(sums) == 1 and kind == sums.dtype:
        return sums[0]  # type: ignore[no-any-return]
    total = namespace(sums).empty(sums.shape[1:], kind)
    filled = np.zeros(1, structure("solve/sums", "SegmentSums"))
    filled[0] = len(sums), total.size, address(sums), address(total)
    name, blocks = f"recsolve::add_segments<{_NUMBERS[kind.char]}>", -(-total.size // LANES)
    machine.launch(Launch(headers("solve/sums"), name, _OPTIONS, blocks, _THREADS, _THREADS * 8, filled))
    return total  # type: ignore[no-any-return]
