"""Pictures of solutions, diagnoses and comparisons: functions that take and return Axes of matplotlib.

The house style holds for what they draw and nowhere else: settings of matplotlib are left as they were. matplotlib is
imported by the first call.
"""

from recsolve.plot.curves import convergence
from recsolve.plot.exponents import prediction, spectrum
from recsolve.plot.maps import residual_map
from recsolve.plot.states import trajectory

__all__ = ["convergence", "prediction", "residual_map", "spectrum", "trajectory"]


def __dir__() -> list[str]:
    return sorted(__all__)
