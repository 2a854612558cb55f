"""Large angles in compiled loops."""

import mpmath
import numpy as np
import pytest
from test_elementary import ANGLES, BOUNDS, FLOATS, NEAR, computed, everywhere


@pytest.mark.parametrize("dtype", FLOATS)
def test_large_angles_are_reduced_exactly(dtype):
    """To the largest number, and where the least is left of the angle: 6381956970095103 2^797 for float64."""
    large = everywhere(dtype, 7)[:2000]
    large = large[np.isfinite(large) & (np.abs(large) > 1e10)]
    hard = [6381956970095103 * 2.0**797, 2.0**46, np.nextafter(2.0**46, np.inf), 1e22]
    hard = [x for x in hard if x < float(np.finfo(dtype).max)]
    x = np.array([*large, *hard, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    with mpmath.workprec(2400):  # more than the largest exponent and the digits
        for name in ANGLES:
            exact = [getattr(mpmath, name)(mpmath.mpf(float(v))) for v in x]
            units = [abs(float(y) - t) / np.spacing(abs(y)) for y, t in zip(computed(name, x), exact, strict=True)]
            assert max(units) <= BOUNDS[name][FLOATS.index(dtype)]
            assert np.isnan(computed(name, np.array([np.inf, -np.inf, np.nan], dtype))).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_near_angles_are_those_that_are_not_far(dtype):
    """Bit for bit: a row is computed by one or by the other, whichever of its lanes is far."""
    x = np.concatenate(
        [everywhere(dtype, 8), dtype([2.0**46, -(2.0**46), np.nextafter(dtype(2.0**46), dtype(np.inf))])]
    )
    far = computed("is_far", x)
    assert np.array_equal(far, np.abs(x) > 2.0**46)
    for name, near in zip(ANGLES, NEAR, strict=True):
        assert np.array_equal(computed(near, x)[~far], computed(name, x)[~far], equal_nan=True)
        assert np.isnan(computed(near, x)[far]).all()
