"""The literal loops of published systems: what a reader of the paper would write, on the arrays of the system.

``ORACLES[name](arrays)`` returns the states, (T, *batch, *event), from NumPy alone; nothing here uses the library.
"""

from collections.abc import Callable, Mapping
from importlib import import_module

import numpy as np

_MODULES = (
    "flash",
    "hidden_transfer",
    "learn2pd",
    "lrnn",
    "mamba",
    "minmax",
    "pararnn",
    "pointers",
    "recurrent_transformer",
    "structural_recursion",
    "tokens",
)

Oracle = Callable[[Mapping[str, np.ndarray]], np.ndarray]
ORACLES: dict[str, Oracle] = {
    name: oracle for module in _MODULES for name, oracle in import_module(f"oracles.{module}").ORACLES.items()
}
