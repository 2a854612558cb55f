"""Expression graphs as functions of NumPy arrays: the reference that the languages of kernels are tested against."""

import numpy as np

from recsolve.symbolic.dual import sigmoid, softplus
from recsolve.symbolic.emit import OPERATORS, Dialect, calls, leaves, variable

NUMPY = Dialect(
    formats=calls("np.") | OPERATORS | {"sigmoid": "sigmoid({})", "softplus": "softplus({})"},
    # A bare number has no dtype: where(condition, 1.0, 0.0) would be float64 among float32 arrays.
    constant=lambda value: repr(value) if isinstance(value, bool) else f"dtype({value!r})",
)


def numpy_function(outputs):
    """Return a function of ``dtype`` and arrays, one per leaf, that returns the outputs."""
    statements, results = NUMPY.write(outputs)
    arguments = ", ".join(["dtype", *(variable(leaf) for leaf in leaves(outputs))])
    lines = [*statements, f"return ({', '.join(results)},)"]
    names = {"np": np, "inf": np.inf, "nan": np.nan, "sigmoid": sigmoid, "softplus": softplus}
    exec("\n".join([f"def stage({arguments}):", *(f"    {line}" for line in lines)]), names)
    return names["stage"]
