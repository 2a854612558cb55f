"""Records as JSON, in files that are either whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.files import replace_into_place as replace_into_place


def write_json(path: Path, record: dict[str, Any]) -> Path:
    """Write strict JSON (no NaN) and return the path."""
    with replace_into_place(path) as part:
        part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def finite_or_text(value: Any) -> Any:
    """Return a value that strict JSON can hold: inf and nan become the strings that ``float`` reads back."""
    if isinstance(value, dict):
        return {name: finite_or_text(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_text(x) for x in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return finite_or_text(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return value
