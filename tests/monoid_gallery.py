"""Random elements and states of every monoid, and the loop that judges their scans.

Those of a monoid that is not named here are arrays of normal numbers, one for each of its letters.
"""

import numpy as np

from recsolve.kernels.monoids.monoid import MONOIDS

EXACT = ("clamp", "max_min", "finite_map")  # whatever the numbers are
WHOLE = (*EXACT, "addition", "saturating_add", "max_plus", "min_plus")  # exact with integers
RESTARTING = tuple(name for name, monoid in MONOIDS.items() if monoid.restarts)


def elements(name, T, shape, rng, dtype=np.float64, size=3, whole=False):
    """Return elements; sums are of integers where ``whole``, so that they do not round.

    ``size`` is the width of matrices (riccati), and the number of states of a finite set.
    """
    normal = lambda *extra: rng.standard_normal((T, *shape, *extra)).astype(dtype)  # noqa: E731
    summed = (lambda *extra: np.rint(3 * normal(*extra))) if whole else normal
    if name == "riccati":
        A, X, Y = (normal(size, size) / dtype(size) for _ in range(3))
        return A, X @ X.swapaxes(-1, -2), Y @ Y.swapaxes(-1, -2)
    if name == "affine":
        return normal() / dtype(2), normal()
    if name == "saturating_add":
        bounds = np.sort(np.stack([summed(), summed()]), axis=0) * 2
        return summed(), bounds[0], bounds[1]
    if name == "moebius":
        return tuple(rng.uniform(0.1, 1, (T, *shape)).astype(dtype) for _ in range(4))
    if name == "finite_map":
        kind = dtype if np.dtype(dtype).kind in "iu" else np.int64
        return (rng.integers(0, size, (T, *shape, size)).astype(kind),)
    if name == "addition":
        return (summed(),)
    if name == "logsumexp":
        return 3 * normal(), normal()
    if name == "weighted_logsumexp":
        return -abs(normal()), 3 * normal(), normal(size)
    if name in ("max_plus", "min_plus"):
        return summed(), summed()
    found = tuple(normal() for _ in MONOIDS[name].letters)
    try:
        MONOIDS[name].prepare(found)
    except (ValueError, TypeError) as error:
        raise NotImplementedError(f"tests/monoid_gallery.py has no elements for the monoid {name!r}") from error
    return found


def matrices(name, T, shape, rng, dtype=np.float64, size=3):
    """Return elements with matrices of a monoid over a semiring."""
    (A,), b = (
        elements("addition", T, (*shape, size, size), rng, dtype, whole=True),
        rng.standard_normal((T, *shape, size)),
    )
    return A, np.rint(b * 3).astype(dtype)


def state(name, elements_, rng):
    """Return a state of one step."""
    like = MONOIDS[name].like(MONOIDS[name].prepare(elements_))
    if name == "finite_map":
        return rng.integers(0, elements_[0].shape[-1], like.shape[1:]).astype(like.dtype)
    if name == "riccati":
        X = rng.standard_normal(like.shape[1:]).astype(like.dtype)
        return X @ X.swapaxes(-1, -2)
    if name == "moebius":
        return rng.uniform(0.1, 1, like.shape[1:]).astype(like.dtype)
    return np.rint(3 * rng.standard_normal(like.shape[1:])).astype(like.dtype)


def agree(name, y, expected):
    """Check a scan against the loop: bit for bit where nothing rounds."""
    assert y.dtype == expected.dtype
    if name in WHOLE:
        np.testing.assert_array_equal(y, expected)
    else:
        scale = max(np.abs(expected).max(initial=0), 1)
        np.testing.assert_allclose(y, expected, rtol=0, atol=200 * np.finfo(y.dtype).eps * scale)


def remembered(judge):
    """Return a judge that answers for the same arrays once: the loop takes long, and judges one scan after another."""
    answers = {}

    def answer(arrays):
        key = b"".join(array.tobytes() for array in arrays)
        if key not in answers:
            answers[key] = judge(arrays)
        return answers[key]

    return answer


def stays_where_it_is(scan, judge, arrays, bad, t0, lane, t1, rtol=0.0):
    """Check that what is not finite spoils no earlier time, no other lane, and nothing from a cut at ``t1`` on.

    ``scan`` and ``judge`` take arrays (T, lanes, ...) and return states. At ``t0`` a number of ``lane`` is spoilt.
    """
    clean = scan(arrays)
    for i in range(len(arrays)):
        spoilt = [array.copy() for array in arrays]
        spoilt[i][(t0, lane) + (0,) * (arrays[i].ndim - 2)] = bad
        y, expected = scan(spoilt), judge(spoilt)
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
        np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
        np.testing.assert_array_equal(y[:t0], clean[:t0])
        np.testing.assert_allclose(y[t1:], clean[t1:], rtol=rtol)
        np.testing.assert_allclose(np.delete(y, lane, axis=1), np.delete(clean, lane, axis=1), rtol=rtol)
        assert np.isnan(y[t0, lane]).any() or t0 == 0 or not np.isnan(bad)


@np.errstate(all="ignore")
def loop(name, elements_, initial=None, reset=None, reverse=False):
    """Return y[t] = e[t](y[t-1]) (or y[t+1]), one step at a time; ``reset`` has the axes of the elements' lanes."""
    monoid = MONOIDS[name]
    e = monoid.prepare(elements_)
    like = monoid.like(e)
    y, before = np.empty(like.shape, like.dtype), initial
    for t in range(len(y))[::-1] if reverse else range(len(y)):
        one = monoid.take(e, t)
        y[t] = monoid.constant(one, initial) if before is None else monoid.act(one, before)
        if reset is not None:
            cut = reset[t].reshape(reset[t].shape + (1,) * (y.ndim - reset.ndim))
            y[t] = np.where(cut, monoid.constant(one, initial), y[t])
        before = y[t]
    return y
