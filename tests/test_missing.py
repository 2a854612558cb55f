"""What is not finite, or missing, leaves all else right, and the solution says what that is."""

import pickle

import gallery
import numpy as np
import pytest

import recsolve as rs

SOLVERS = sorted(rs.solvers.REGISTRY)


def missing(name, mixing, T=40, batch=3):
    """A cell, an input with NaN where it is missing, and where it is not."""
    cell = gallery.weighted(name, mixing)
    rng = np.random.default_rng(0)
    known = rng.random((T, batch)) < 0.7
    known[0, 1] = known[-1, 2] = False
    return cell, np.where(known[..., None], rng.standard_normal((T, batch, cell.input_size)), np.nan), known


def held(cell, x, known):
    drive = cell.drive(np.where(known[..., None], x, 0))
    for u in drive.values():
        u[~known] = 1e3  # whatever it is
    given = known.reshape(*known.shape, *(1,) * (u.ndim - known.ndim)).astype(x.dtype)
    return rs.cells.holding(cell).recurrence(drive={**drive, "given": given})


@pytest.mark.parametrize(("name", "mixing"), gallery.CELLS)
def test_missing_inputs_keep_the_state(name, mixing):
    """At the steps that are given stand the states of a loop over these alone, and between them nothing moves."""
    cell, x, known = missing(name, mixing)
    sol = rs.solve(held(cell, x, known))
    assert sol.trusted
    for b in range(known.shape[1]):
        alone = cell.recurrence(x[known[:, b], b])
        truth = gallery.loop(alone)
        start = np.broadcast_to(alone.initial, truth.shape[1:])
        wanted = np.concatenate([start[None], truth])[np.cumsum(known[:, b])]
        assert np.abs(sol.states[:, b] - wanted).max() <= gallery.bound(sol)


@pytest.mark.parametrize("method", SOLVERS)
def test_every_method_holds(method):
    cell, x, known = missing("lstm", "heads")
    rec = held(cell, x, known)
    sol = rs.solve(rec, method=method)
    assert sol.success
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)
    first = [t for t in range(1, 40) if not known[t, 0]]
    np.testing.assert_allclose(sol.states[first, 0], sol.states[[t - 1 for t in first], 0], rtol=1e-14)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
def test_holding_cells_compile_pickle_and_have_gradients(mixing, backend):
    cell, x, known = missing("gru", mixing)
    with rs.backend(backend):
        sol = rs.solve(pickle.loads(pickle.dumps(held(cell, x, known))))
        assert sol.trusted
        found = rs.adjoint(sol, states=np.ones(sol.states.shape))
    for name in cell.cell.drives:
        assert (found.drive[name][~known] == 0).all()
        assert (found.drive[name][known] != 0).any()
    assert all(np.isfinite(g).all() for g in (*found.mixings.values(), found.initial))


def test_a_cell_holds_only_once():
    with pytest.raises(ValueError, match="has a drive given already"):
        rs.cells.holding(rs.cells.holding(gallery.weighted("gru")))


NOT_FINITE = {
    "sequences": (("gru", "dense"), lambda u: u.__setitem__((20, 1, 3), np.nan), (slice(20, None), 1)),
    "heads": (("lstm", "heads"), lambda u: u.__setitem__((20, 1, 2, 0), np.nan), (slice(20, None), 1, slice(None), 2)),
    "units": (("gru", "diagonal"), lambda u: u.__setitem__((20, 1, 3), np.nan), (slice(20, None), 1, 3)),
}


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("kind", sorted(NOT_FINITE))
def test_what_is_not_finite_leaves_all_else_right_and_says_so(kind, method):
    cell, spoil, place = NOT_FINITE[kind]
    clean = gallery.recurrence(*cell, T=50, batch=(3,))
    drive = {name: u.copy() for name, u in clean.drive.items()}
    spoil(next(reversed(drive.values())))
    sol = rs.solve(clean.cell.recurrence(drive=drive), method=method)
    wrong = np.zeros(clean.shape, bool)
    wrong[place] = True
    assert sol.status == "nonfinite"
    np.testing.assert_array_equal(sol.converged_entries, ~wrong)
    assert np.abs((sol.states - gallery.loop(clean))[~wrong]).max() <= gallery.bound(rs.solve(clean))
    assert f"{(~wrong).sum()} of {wrong.size} numbers are right" in sol.message
    assert "2 of 3 sequences at all steps" in sol.message


def test_what_has_converged_has_in_all_entries():
    for rec in (gallery.recurrence("gru", "diagonal"), gallery.recurrence("lstm", "dense")):
        assert rs.solve(rec).converged_entries.all()
        few = rs.solve(rec, method="jacobi", maxiter=3)
        assert 0 < few.converged_entries.sum() < few.states.size
        assert (few.converged_entries.reshape(*few.converged_rows.shape, -1).all(axis=-1) == few.converged_rows).all()
