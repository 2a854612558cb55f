"""What a system is, and the list of them.

To add one, write ``studies/systems/NAME.py`` (``systems/pararnn.py`` is the model), enter its systems in ``CATALOGUE``,
and give its oracle in ``tests/oracles``: the literal loop of the paper, or another library, on the same arrays.

- The docstring of the module has the equations, their source, and the structure of the Jacobian.
- ``Config`` is a frozen dataclass of numbers and texts with ``length``, ``seed`` and ``dtype``; as it stands a solve
  takes less than a second.
- ``draw(config)`` returns random inputs and weights, arrays by name, in the paper's own shapes.
- A *maker* gets these arrays and returns the recurrence; ``SYSTEMS = (system_of(__name__, ...), ...)`` names it, and
  where the solution can be had from scans alone also ``scan``, which gets the recurrence and returns its states.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import Any

import numpy as np

from recsolve import Recurrence
from recsolve.base.arrays import Array
from recsolve.solvers.registry import REGISTRY, applicable

Arrays = Mapping[str, Array]

# Modules of recsolve.studies.systems by the name of the system, in the order of the docs.
CATALOGUE: dict[str, str] = {
    "pararnn_gru": "pararnn",
    "pararnn_lstm": "pararnn",
    "flash_elman": "flash",
    "flash_gru": "flash",
    "flash_lstm": "flash",
    "flash_slstm": "flash",
    "lrnn_diagonal": "lrnn",
    "lrnn_pd": "lrnn",
    "lrnn_s5": "lrnn",
    "lrnn_relu": "lrnn",
    "lrnn_products": "lrnn",
    "pointer": "pointers",
    "connectivity": "pointers",
    "recurrent_transformer": "recurrent_transformer",
    "learn2pd": "learn2pd",
    "hidden_transfer": "hidden_transfer",
    "minmax": "minmax",
    "mamba_s6": "mamba",
    "tokens_ngram": "tokens",
    "tokens_transformer": "tokens",
    "successor": "structural_recursion",
    "adder": "structural_recursion",
    "tree_inorder": "structural_recursion",
    "tree_preorder": "structural_recursion",
}


@dataclass(frozen=True, kw_only=True)
class System:
    """The recurrence at the core of a published system.

    Attributes
    ----------
    name, title : str
        Of the system, and of the paper.
    cite : str
        Where it is published.
    structure : str
        Of its Jacobian, in words.
    text : str
        The equations: the docstring of its module.
    config : dataclass instance
        Sizes, ``length``, ``seed`` and ``dtype``.
    draw : callable
        ``draw(config)`` returns random inputs and weights by name.
    make : callable
        ``make(arrays)`` returns the recurrence.
    scan : callable, optional
        ``scan(recurrence)`` returns its states, (T, *batch, *event), from exact scans without iterating.
    study : str, optional
        The study that shows the paper's claim in miniature.

    Examples
    --------
    >>> import recsolve as rs
    >>> from recsolve.studies.systems.system import get
    >>> rec = get("pararnn_gru").build(length=256)
    >>> rs.solve(rec, method="newton").success
    True
    """

    name: str
    title: str
    cite: str
    structure: str
    text: str
    config: Any
    draw: Callable[[Any], Arrays]
    make: Callable[[Arrays], Recurrence]
    scan: Callable[[Recurrence], Array] | None = None
    study: str | None = None

    @property
    def solvers(self) -> str:
        """Which solvers apply, in words."""
        known = applicable(self.build(length=2))
        return "all" if len(known) == len(REGISTRY) else ", ".join(known)

    def build(self, arrays: Arrays | None = None, **changes: Any) -> Recurrence:
        """Return the recurrence of given arrays, or of random ones with some values of the config changed.

        Raises
        ------
        ValueError
            For arrays together with changes, or names that are not those that ``draw`` gives.
        TypeError
            For changes that the config does not have.
        """
        if arrays is None:
            return self.make(self.draw(type(self.config)(**{**vars(self.config), **changes})))
        if changes:
            raise ValueError(f"arrays and {', '.join(changes)} are given; wanted arrays, or changes of the config")
        wanted = self.draw(type(self.config)(**{**vars(self.config), "length": 1}))
        if arrays.keys() != wanted.keys():
            raise ValueError(f"arrays has names {sorted(arrays)}; wanted {sorted(wanted)}")
        return self.make(arrays)


def system_of(module: str, **given: Any) -> System:
    """Return a system of a module whose parts have the names that this file lists at its head."""
    parts = vars(sys.modules[module])
    return System(**{"text": cleandoc(parts["__doc__"]), "config": parts["Config"](), "draw": parts["draw"], **given})


def get(name: str) -> System:
    """Return a system by its name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    """
    if name not in CATALOGUE:
        raise ValueError(f"system is {name!r}; wanted one of {', '.join(CATALOGUE)}")
    known: tuple[System, ...] = import_module(f"recsolve.studies.systems.{CATALOGUE[name]}").SYSTEMS
    return next(system for system in known if system.name == name)


class Draw:
    """Random arrays of one dtype."""

    def __init__(self, seed: int, dtype: str):
        self._rng, self._dtype = np.random.default_rng(seed), np.dtype(dtype)

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Return numbers of a normal distribution of this deviation."""
        return (scale * self._rng.standard_normal(shape)).astype(self._dtype)

    def integers(self, low: int, high: int, *shape: int) -> Array:
        """Return whole numbers from ``low`` on and below ``high``."""
        return self._rng.integers(low, high, shape).astype(self._dtype)

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Return numbers between two others."""
        return self._rng.uniform(low, high, shape).astype(self._dtype)
