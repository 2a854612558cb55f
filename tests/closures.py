"""Cells that see a number beside their arguments, and how that number changes: x' = number tanh(W x) + u."""

import numpy as np

from recsolve.math import tanh


class Holder:
    """An object with the number, which is a cell's function too."""

    def __init__(self, value):
        self.value = value

    def __call__(self, s, W, u, p):
        return self.value * tanh(W.h(s.x)) + u.u0


GLOBAL = 0.5


def closures(number):
    """Return functions by where they find ``number``, each with how to change it."""
    enclosed_number, box, array = number, [number], np.array(number)
    holder, table, own = Holder(number), {"a": number}, Holder(number)

    def enclosed(s, W, u, p):
        return enclosed_number * tanh(W.h(s.x)) + u.u0

    def set_enclosed(x):
        nonlocal enclosed_number
        enclosed_number = x

    def by_global(s, W, u, p):
        return tanh(W.h(s.x)) * GLOBAL + u.u0

    def set_global(x):
        global GLOBAL
        GLOBAL = x

    def default(s, W, u, p, scale=number):
        return scale * tanh(W.h(s.x)) + u.u0

    def called(s, W, u, p):
        return inner() * tanh(W.h(s.x)) + u.u0

    def inner():
        return holder.value

    def set_held(x):
        holder.value = x

    set_global(number)
    return {
        "closure cell": (enclosed, set_enclosed),
        "list": (lambda s, W, u, p: box[0] * tanh(W.h(s.x)) + u.u0, lambda x: box.__setitem__(0, x)),
        "array": (lambda s, W, u, p: float(array) * tanh(W.h(s.x)) + u.u0, lambda x: array.__setitem__((), x)),
        "attribute": (lambda s, W, u, p: holder.value * tanh(W.h(s.x)) + u.u0, set_held),
        "dict": (lambda s, W, u, p: table["a"] * tanh(W.h(s.x)) + u.u0, lambda x: table.__setitem__("a", x)),
        "global": (by_global, set_global),
        "default": (default, lambda x: setattr(default, "__defaults__", (x,))),
        "inner call": (called, set_held),
        "callable object": (own, lambda x: setattr(own, "value", x)),
    }
