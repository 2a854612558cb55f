"""Sums are Python's, of whole numbers of any size; trees are traversed by a function that calls itself."""

import numpy as np


def _number(bits):
    return sum(1 << t for t, bit in enumerate(bits) if bit)


def _summed(columns, carry):
    """The carry out of each bit, and each bit, of a sum of two numbers and a carry."""
    T = len(columns[0])
    total = sum(map(_number, columns)) + carry
    bits = [total >> t & 1 for t in range(T)]
    carries = [sum(_number(bits[: t + 1]) for bits in columns) + carry >> t + 1 for t in range(T)]
    return np.stack([carries, bits], axis=-1).astype(bool)


def successor(arrays):
    return np.stack([_summed([b], 1) for b in arrays["b"].T.tolist()], axis=1)


def adder(arrays):
    pairs = zip(arrays["a"].T.tolist(), arrays["b"].T.tolist(), strict=True)
    return np.stack([_summed([a, b], 0) for a, b in pairs], axis=1)


def _traversals(arrays, join):
    children, values = arrays["children"].tolist(), arrays["values"].tolist()

    def visit(node):
        return join(visit(children[node][0]), [values[node]], visit(children[node][1])) if node >= 0 else []

    lists = [visit(node) for node in range(len(values))]
    padded = [[len(found), *found, *[-1] * (len(values) - len(found))] for found in lists]
    return np.array(padded, arrays["values"].dtype)


def inorder(arrays):
    return _traversals(arrays, lambda left, value, right: left + value + right)


def preorder(arrays):
    return _traversals(arrays, lambda left, value, right: value + left + right)


ORACLES = {"successor": successor, "adder": adder, "tree_inorder": inorder, "tree_preorder": preorder}
