"""Random cells: expressions around mixings, as a cell of the library and as a model that the oracle evaluates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import recsolve as rs
from recsolve import math as rm
from recsolve.mixings import Dense, Diagonal, Heads

from . import trees
from .trees import LONG

COMPONENTS = ("x", "y", "z")


class MaskedDense(Dense):
    """A user's mixing that says all of what it is: entries outside a mask are taken as 0."""

    def __init__(self, weight, mask):
        super().__init__(weight)
        self.mask = mask

    def dense(self):
        return self.weight * self.mask

    def matvec(self, x):
        return x @ self.dense().swapaxes(-1, -2)

    def transpose(self):
        return MaskedDense(self.weight.swapaxes(-1, -2), self.mask.swapaxes(-1, -2))

    def diagonal(self):
        return np.diagonal(self.dense(), axis1=-2, axis2=-1)

    def hadamard_transpose(self, other):
        return Dense(self.dense() * other.dense().swapaxes(-1, -2))

    def weight_cotangent(self, g, x):
        return super().weight_cotangent(g, x) * self.mask

    def map(self, function):
        return MaskedDense(function(self.weight), self.mask)


class Halved(Dense):
    """A user's mixing that overrides the product alone."""

    def matvec(self, x):
        return super().matvec(x) * x.dtype.type(0.5)


class HalvedDiagonal(Diagonal):
    """A user's diagonal mixing that overrides the product alone."""

    def matvec(self, x):
        return super().matvec(x) * 0.5


class HalvedHeads(Heads):
    """A user's mixing of heads that overrides the product alone."""

    def matvec(self, x):
        return super().matvec(x) * x.dtype.type(0.5)


class Renamed(Diagonal):
    """A subclass that changes nothing."""


OWN = {"dense": Halved, "diagonal": HalvedDiagonal, "heads": HalvedHeads, "renamed": Renamed}


@dataclass
class Model:
    """What the oracle knows of a cell.

    Attributes
    ----------
    trees : tuple
        The new value of each component.
    matrices : dict
        Name to ("diagonal", a) or ("matrix", W), the *effective* entries in the working dtype.
    lanes, units : tuple, int
        The event axes.
    drives, parameters : tuple of str, dict of array
    """

    trees: tuple
    matrices: dict
    lanes: tuple
    units: int
    drives: tuple
    parameters: dict = field(default_factory=dict)

    @property
    def components(self):
        return len(self.trees)

    @property
    def elementwise(self):
        return all(kind == "diagonal" for kind, _ in self.matrices.values())

    def values(self, state, drive, dtype):
        """Return what :func:`trees.evaluated` asks for; ``state`` (..., k, *lanes, n), all arrays in ``dtype``."""
        cast = lambda a: np.asarray(a).astype(dtype)  # noqa: E731
        axis = state.ndim - len(self.lanes) - 2

        def answer(tree, x):
            name, what = tree[0], tree[1]
            if name == "s":
                return np.take(state, what, axis=axis)
            if name == "u":
                return np.broadcast_to(cast(drive[what]), np.delete(np.array(state.shape), axis))
            if name == "p":
                return cast(self.parameters[what])
            if name == "c":
                return np.asarray(what, dtype)
            return product(self.matrices[what], x, dtype)

        return answer

    def step(self, state, drive, dtype):
        """Return the new state, (..., k, *lanes, n)."""
        answer, shape = self.values(state, drive, dtype), np.take(state, 0, axis=-len(self.lanes) - 2).shape
        new = [np.broadcast_to(trees.evaluated(tree, answer), shape) for tree in self.trees]
        return np.stack(new, axis=-len(self.lanes) - 2)

    def rounding(self, state, drive, dtype):
        """Return f of a state in extended precision, and a bound on the rounding of f in ``dtype``."""
        unit = float(np.finfo(dtype).eps) / 2
        state = state.astype(LONG)
        answer, shape = self.values(state, drive, LONG), np.take(state, 0, axis=-len(self.lanes) - 2).shape

        def mixed(name, x, e):
            kind, W = self.matrices[name]
            size = 1 if kind == "diagonal" else W.shape[-1]
            grown = np.abs(x) * (size + 3) * unit + e
            return product((kind, np.abs(W)), grown, LONG) + np.finfo(dtype).tiny

        pairs = [trees.rounded(tree, answer, mixed, unit, dtype) for tree in self.trees]
        stack = lambda i: np.stack([np.broadcast_to(p[i], shape) for p in pairs], axis=-len(self.lanes) - 2)  # noqa: E731
        return stack(0), stack(1)


def product(matrix, x, dtype):
    """Return the product of a mixing's entries with x (..., *lanes, n), written out as a sum."""
    kind, W = matrix
    W = np.asarray(W).astype(dtype)
    return W * x if kind == "diagonal" else (W * x[..., None, :]).sum(axis=-1)


def random_model(rng, *, mixing, components, lanes, units, style, dtype, depth=2, gain=1.0):
    """Return a model: random trees over its components, one or two drives, a parameter, and mixings of one kind."""
    names = [f"W{i}" for i in range(int(rng.integers(1, 3)))] if mixing else []
    shape = {"diagonal": (units,), "dense": (units, units), "heads": (*lanes, units, units)}.get(mixing)
    entries = {n: (rng.uniform(-1, 1, shape) * gain / (1 if mixing == "diagonal" else units**0.5)) for n in names}
    drives = tuple(f"u{i}" for i in range(int(rng.integers(1, 3))))
    leaves = [("s", i) for i in range(components)] + [("u", n) for n in drives] + [("p", "b")]
    leaves += [("mix", n, ("s", int(rng.integers(components)))) for n in names]
    if names and rng.random() < 0.3:  # nested: a mixing of what a gate lets through
        leaves.append(("mix", names[0], ("multiply", ("sigmoid", ("u", drives[0])), ("s", 0))))
    grown = [trees.wrapped(rng, i, leaves, style, depth) for i in range(components)]
    # Whatever the style draws, every drive and every mixing must occur, for a cell has what its function uses.
    grown[0] = ("add", grown[0], ("multiply", ("c", 0.125), ("u", drives[-1])))
    for n in names:
        grown[-1] = ("add", grown[-1], ("multiply", ("c", 0.25), ("tanh", ("mix", n, ("s", 0)))))
    matrices = {n: ("diagonal" if mixing == "diagonal" else "matrix", W.astype(dtype)) for n, W in entries.items()}
    event = (*lanes, units)
    return Model(tuple(grown), matrices, lanes, units, drives, {"b": rng.uniform(-1, 1, event).astype(dtype)})


def cell_source(model, constant="{!r}", state="s.{}", drive="u.{}", parameter="p.{}", mixing="W.{}({})"):
    """Return the source of a function of a model's trees."""

    def render(leaf, inside):
        if leaf[0] == "mix":
            return mixing.format(leaf[1], inside)
        if leaf[0] == "s":
            return state.format(COMPONENTS[leaf[1]])
        return {"u": drive, "p": parameter, "c": constant}[leaf[0]].format(leaf[1])

    return ", ".join(trees.source(tree, render) for tree in model.trees)


def names_used(model):
    """Return the parameters that occur in the trees."""
    text = repr(model.trees)
    return [n for n in model.parameters if f"('p', '{n}')" in text]


def compiled_function(arguments, body, name="fuzzed"):
    """Return the function of a body of source, with the names of recsolve.math and np."""
    space = {n: getattr(rm, n) for n in rm.__all__} | {"np": np}
    exec(f"def {name}({arguments}):\n    return {body}", space)
    return space[name]


def library_cell(model, mixings=None, constant="{!r}"):
    """Return the weighted cell of a model; ``mixings`` by name replace the plain ones."""
    function = compiled_function("s, W, u, p", cell_source(model, constant))
    state = COMPONENTS[: model.components]
    cell = rs.Cell(function, state=state, output=state[-1])
    plain = {n: plain_mixing(model, W) for n, (_, W) in model.matrices.items()} | dict(mixings or {})
    return cell.with_weights(
        mixings={n: plain[n] for n in cell.mixings},
        parameters={n: model.parameters[n] for n in names_used(model)},
        hidden_size=int(np.prod(model.lanes)) * model.units,
    )


def plain_mixing(model, W):
    """Return the library's own mixing with these entries."""
    return (Diagonal, Dense, Heads)[W.ndim - 1](W)
