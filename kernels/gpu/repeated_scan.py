"""An affine scan that is planned once, and launched again over other arrays that lie alike."""

from __future__ import annotations

from recsolve.base.arrays import Array, address, namespace
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.gpu.device import Machine
from recsolve.kernels.gpu.scan.scan_cuda import Launches, launches
from recsolve.kernels.gpu.views import AT
from recsolve.kernels.monoids.monoid import MONOIDS


class RepeatedScan:
    """An affine scan that is planned once, and launched with other addresses."""

    def __init__(self, launched: Launches, machine: Machine, d: Array):
        self.launched, self.machine, self.d = launched, machine, d
        self.launch = machine.prepared(launched.one)

    @classmethod
    def of(cls, machine: Machine, A: Diagonal | Block, b: Array, cut: Array) -> RepeatedScan | None:
        """Return the scan of arrays laid out as these; None if no kernel takes it."""
        d = namespace(b).empty_like(b)
        launched = launches(MONOIDS["affine"], (A, b), d, machine, reset=cut)
        read = {"in0": A.data, "in1": b, "cut": cut}
        if launched is None or any(address(launched.arrays[name]) != address(x) for name, x in read.items()):
            return None
        launched.arrays = {}  # of which these are the first, and need not be kept
        return cls(launched, machine, d)

    def run(self, A: int, b: int, cut: int) -> Array:
        """Return d, of arrays at such addresses."""
        p = self.launched.one.problem
        p[AT["in0"]], p[AT["in1"]], p[AT["cut"]] = A, b, cut
        if self.launched.told is not None:
            self.machine.clear(self.launched.told)
        self.launch()
        return self.d
