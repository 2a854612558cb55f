"""The literal loops of published systems: what a reader of the paper would write, on the arrays of the system.

``ORACLES[name](arrays)`` returns the states, (T, *batch, *event), from NumPy alone; nothing here uses the library. Each
module of this folder enters its own.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules

import numpy as np

Oracle = Callable[[Mapping[str, np.ndarray]], np.ndarray]
ORACLES: dict[str, Oracle] = {
    name: oracle
    for module in iter_modules(__path__)
    for name, oracle in getattr(import_module(f"oracles.{module.name}"), "ORACLES", {}).items()
}
