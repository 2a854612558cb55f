"""What a system is, and the list of them.

To add one, write ``studies/systems/NAME.py`` (``systems/pararnn.py`` is the model), enter its systems in ``CATALOGUE``,
and give its oracle in ``tests/oracles``: the literal loop of the paper, or another library, on the same arrays.

- The docstring of the module has the equations, their source, and the structure of the Jacobian.
- ``Config`` is a frozen dataclass of numbers and texts with ``length``, ``seed`` and, where states are real, ``dtype``;
  as it stands a solve takes less than a second.
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
    "plstm_line": "plstm",
    "plstm_grid_p": "plstm",
    "plstm_grid_d": "plstm",
    "plstm_graph": "plstm",
    "attention_rnn": "attention_rnn",
    "leaky_outer": "leaky",
    "leaky_inner": "leaky",
    "leaky_parity": "leaky",
    "elman": "review",
    "jordan": "review",
    "lstm_review": "review",
    "brnn": "brnn",
    "universal_transformer": "universal",
    "universal_act": "universal",
    "lrnn_diagonal": "lrnn",
    "lrnn_pd": "lrnn",
    "lrnn_s5": "lrnn",
    "lrnn_relu": "lrnn",
    "lrnn_products": "lrnn",
    "pointer": "pointers",
    "connectivity": "pointers",
    "deltanet": "delta_rule",
    "rwkv7": "delta_rule",
    "convs5": "convs5",
    "convlstm": "convs5",
    "seq2seq_lstm": "seq2seq",
    "recurrent_depth": "recurrent_depth",
    "m2rnn": "m2rnn",
    "lattice_pruned": "poset",
    "recurrent_transformer": "recurrent_transformer",
    "mlstm": "mlstm",
    "mlstm_sig": "mlstm",
    "pgn": "pgn",
    "learn2pd": "learn2pd",
    "quasi_lstm": "quasi_lstm",
    "mh_lstm": "quasi_lstm",
    "hidden_transfer": "hidden_transfer",
    "gla": "gla",
    "ttt": "ttt",
    "tnt": "ttt",
    "minmax": "minmax",
    "minmax_cascade": "minmax",
    "minmax_matrix": "minmax",
    "mamba_s6": "mamba",
    "cola_depth": "cola",
    "sparse_tanh": "sparse",
    "sparse_relu": "sparse",
    "sparse_gru": "sparse",
    "sparse_lstm": "sparse",
    "sparse_dag": "sparse",
    "tokens_ngram": "tokens",
    "tokens_transformer": "tokens",
    "jrt": "jrt",
    "successor": "structural_recursion",
    "adder": "structural_recursion",
    "tree_inorder": "structural_recursion",
    "tree_preorder": "structural_recursion",
    "memory_caching": "memory_caching",
    "memory_caching_dla": "memory_caching",
    "titans": "titans",
    "lssl": "lssl",
    "think_at_hard": "think_at_hard",
    "lact": "lact",
    "lact_norm": "lact",
    "lact_muon": "lact",
    "recurrent_gpt": "recurrent_gpt",
    "htm_memory": "htm",
    "htm_permanence": "htm",
    "fsmn": "fsmn",
    "cfc": "cfc",
    "hopfield": "hopfield",
    "gtf_deer": "gtf",
    "mala_gaussian": "mcmc",
    "mala_wells": "mcmc",
    "hmc_gaussian": "mcmc",
    "hmc_wells": "mcmc",
    "leapfrog": "mcmc",
    "diffusion": "diffusion",
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
        Sizes, ``length``, ``seed`` and, where states are real, ``dtype``.
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
    def solvers(self) -> list[str]:
        """The names of the solvers that apply, in the order of the registry."""
        return applicable(self.build(length=1))

    def which_solvers(self) -> str:
        """Say in words which solvers apply."""
        found = self.solvers
        others = [name for name in REGISTRY if name not in found]
        if not others:
            return "all"
        return ", ".join(found) if len(found) <= len(others) else f"all but {', '.join(others)}"

    def build(self, arrays: Arrays | None = None, **changes: Any) -> Recurrence:
        """Return the recurrence of given arrays, or of random ones with some values of the config changed.

        Raises
        ------
        ValueError
            For arrays together with changes, names that are not those that ``draw`` gives, sizes that are not positive.
        TypeError
            For changes that the config does not have.
        """
        if arrays is None:
            return self.make(self.draw(self.configured(**changes)))
        if changes:
            raise ValueError(f"arrays and {', '.join(changes)} are given; wanted arrays, or changes of the config")
        wanted = self.draw(self.configured(length=1))
        if arrays.keys() != wanted.keys():
            raise ValueError(f"arrays has names {sorted(arrays)}; wanted {sorted(wanted)}")
        return self.make(arrays)

    def configured(self, **changes: Any) -> Any:
        """Return the config with some values changed; errors are those of :meth:`build`."""
        config = type(self.config)(**{**vars(self.config), **changes})
        for name, value in vars(self.config).items():
            new, least = getattr(config, name), 0 if name in ("length", "seed") or value == 0 else 1
            if type(value) is int and value >= 0 and new < least:
                raise ValueError(f"{name} is {new}; wanted at least {least}")
        return config


def system_of(module: str, **given: Any) -> System:
    """Return a system of a module whose parts have the names that this file lists at its head, or are given here.

    Examples
    --------
    >>> from recsolve.studies.systems.system import get, system_of
    >>> known = get("minmax")
    >>> given = {"name": "mine", "title": "Mine", "cite": "me", "structure": "diagonal", "make": known.make}
    >>> system_of("recsolve.studies.systems.minmax", **given).config == known.config
    True
    """
    parts = vars(sys.modules[module])
    known = {"text": cleandoc(parts["__doc__"]), "config": parts["Config"](), "draw": parts.get("draw")}
    return System(**{**known, **given})


def get(name: str) -> System:
    """Return a system by its name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.

    Examples
    --------
    >>> from recsolve.studies.systems.system import get
    >>> get("minmax").name
    'minmax'
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

    def unit(self, *shape: int) -> Array:
        """Return vectors of norm 1, along the last axis, in all directions alike."""
        x = self._rng.standard_normal(shape)
        unit: Array = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(self._dtype)
        return unit

    def integers(self, low: int, high: int, *shape: int) -> Array:
        """Return whole numbers from ``low`` on and below ``high``."""
        return self._rng.integers(low, high, shape).astype(self._dtype)

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Return numbers between two others."""
        return self._rng.uniform(low, high, shape).astype(self._dtype)
