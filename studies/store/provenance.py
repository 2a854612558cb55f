"""Where a number comes from: versions, machine, time."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import recsolve

PACKAGES = ("numpy", "numba", "scipy", "matplotlib", "torch", "cupy-cuda12x", "cupy-cuda13x")


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {"recsolve": recsolve.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what the numbers were computed on."""
    return {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit of the source tree when recsolve runs from a checkout."""
    root = Path(recsolve.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def provenance() -> dict[str, Any]:
    """Return everything that belongs beside a stored number."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"versions": versions(), "machine": machine(), "commit": commit(), "time": now}
