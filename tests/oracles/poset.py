"""The lattice itself, by all subsets or by closures, and the loop of a pruned network."""

from itertools import combinations

import numpy as np

from oracles.functions import walked


def completion(below):
    """Return all cuts of a partial order as frozensets: sets that are the lower bounds of their upper bounds."""
    n = len(below)
    down = [frozenset(a for a in range(n) if below[a, b]) for b in range(n)]
    cuts, new = {frozenset(range(n))}, set(down)
    while new:  # every cut is an intersection of principal ones
        cuts |= new
        new = {a & b for a, b in combinations(cuts, 2)} - cuts
    return cuts, down


def upper_covers(cut, cuts):
    above = [other for other in cuts if cut < other]
    return [a for a in above if not any(b < a for b in above)]


def irreducible(below):
    """Return which elements of a partial order have one upper cover in its completion, by looking at all cuts."""
    cuts, down = completion(below)
    return np.array([len(upper_covers(down[x], cuts)) == 1 for x in range(len(below))])


def reach(feeds):
    """Return reached[a, b], by walking from every neuron; feeds[i, j]: j feeds i."""
    n = len(feeds)
    found = np.zeros((n, n), bool)
    for a in range(n):
        waiting = [a]
        while waiting:
            b = waiting.pop()
            if not found[a, b]:
                found[a, b] = True
                waiting += list(np.flatnonzero(feeds[:, b]))
    return found


def kept(feeds):
    """Return which neurons stay: those of the elements of the condensed order that are meet-irreducible."""
    reached = reach(feeds)
    _, first, member = np.unique(reached & reached.T, axis=0, return_index=True, return_inverse=True)
    return irreducible(reached[np.ix_(first, first)])[member.ravel()]


def pruned(arrays):
    x, U, W, b = (arrays[name] for name in ("x", "U", "W", "b"))
    feeds = np.abs(W) > arrays["theta"]
    units = np.flatnonzero(kept(feeds))
    inner, outer = (W * feeds)[np.ix_(units, units)], U[units]

    def step(h, t):
        new = np.zeros_like(h)
        new[:, units] = np.tanh(h[:, units] @ inner.T + x[t] @ outer.T + b[units])
        return new

    return np.stack(walked(step, np.zeros((x.shape[1], len(W)), x.dtype), len(x)))


ORACLES = {"lattice_pruned": pruned}
