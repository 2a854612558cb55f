"""What nvcc says of kernels compiled for sm_90."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from recsolve.kernels.gpu.scan.variants import OPTIONS, Regime, Variant, text

TOGETHER = 16  # kernels of a compilation, whose time grows faster than their number


def spills(regime: Regime, variants: list[Variant], folder: Path) -> list[tuple[str, ...]]:
    """Return the bytes of stack, spill stores and spill loads of the kernels of a regime."""
    kernels = [v.expression for v in variants if v.regime == regime]
    parts = [kernels[first : first + TOGETHER] for first in range(0, len(kernels), TOGETHER)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            found for part in pool.map(partial(_spills, regime, folder), range(len(parts)), parts) for found in part
        ]


def _spills(regime: Regime, folder: Path, number: int, kernels: Sequence[str]) -> list[tuple[str, ...]]:
    code = folder / f"kernels_{number}.cu"
    code.write_text(
        text(regime) + "".join(f"template __global__ void {name}(const recsolve::Problem);\n" for name in kernels)
    )
    command = ["nvcc", *OPTIONS, "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(code), "-o", os.devnull]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(found) == len(kernels)
    return found
