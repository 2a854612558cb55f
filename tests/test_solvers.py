"""Settings of the solvers: what they reduce to, what they cost, and what is refused."""

import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.jacobians import Diagonal
from recsolve.solvers import registry
from recsolve.solvers.quasi_newton import hutchinson

S = rs.solvers


def iterates(rec, method, count=6, **options):
    seen = []
    rs.solve(rec, method=method, maxiter=count, callback=lambda it: seen.append(it.states.copy()), **options)
    return seen


def same(a, b, atol=1e-12):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


REDUCTIONS = {
    "scaled by 0 is newton": (S.ScaledNewton(k=0.0), "newton"),
    "scaled by 1 is jacobi": (S.ScaledNewton(k=1.0), "jacobi"),
    "relaxed by 1 is newton": (S.RelaxedNewton(omega=1.0), "newton"),
    "chord refreshed always is newton": (S.Chord(refresh=1), "newton"),
    "the user's own J is newton": (S.QuasiNewton(approximation=lambda J: J), "newton"),
    "the user's own block is quasi_newton": (S.QuasiNewton(approximation=lambda J: J.block()), "quasi_newton"),
}


@pytest.mark.parametrize("cell", [("gru", "dense"), ("lstm", "heads"), ("lstm", "diagonal")], ids="-".join)
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_reductions(name, cell):
    solver, reduced = REDUCTIONS[name]
    rec = gallery.recurrence(*cell, T=40)
    same(iterates(rec, solver), iterates(rec, reduced))


def test_clipping_does_nothing_to_a_contractive_diagonal():
    rec = gallery.recurrence("gru", "diagonal", T=40)
    same(iterates(rec, "clipped_newton"), iterates(rec, "newton"))


def test_hutchinson_is_exact_on_diagonals_and_unbiased_elsewhere():
    diagonal = gallery.recurrence("gru", "diagonal", T=40)
    same(iterates(diagonal, S.QuasiNewton(approximation="hutchinson")), iterates(diagonal, "newton"))
    rec = gallery.recurrence("gru", "dense", T=3, units=4)
    J = rec.linearise(gallery.loop(rec))[1]
    problem = S.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
    estimate = hutchinson(problem, J.matvec, 4000, 0)
    np.testing.assert_allclose(estimate.data, J.diagonal().data, atol=0.05)
    again = hutchinson(problem, J.matvec, 4000, 0)
    np.testing.assert_array_equal(estimate.data, again.data)


@pytest.mark.parametrize("approximation", ["block", "diagonal", "hutchinson"])
def test_every_approximation_converges(approximation):
    rec = gallery.recurrence("lstm", "dense")
    sol = rs.solve(rec, method="quasi_newton", options={"approximation": approximation})
    assert sol.trusted
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize(("name", "njev"), [("chord", 1), ("broyden", 0), ("diagonal_broyden", 0), ("jacobi", 0)])
def test_what_is_not_needed_is_not_evaluated(name, njev):
    sol = rs.solve(gallery.recurrence("gru", "dense"), method=name)
    assert sol.success
    assert sol.stats["njev"] == njev


def test_broyden_learns_the_jacobian_of_an_affine_recurrence():
    """In one dimension the secant is exact after two steps."""
    u = np.random.default_rng(0).standard_normal((50, 1))
    rec = gallery.function(lambda h, u: 0.9 * h + u, u)
    for method in ("broyden", "diagonal_broyden"):
        assert rs.solve(rec, method=method, tol=1e-11).nit <= 4


def test_scaled_jacobians():
    for cell in gallery.CELLS:
        rec = gallery.recurrence(*cell, T=4, units=4)
        J = rec.linearise(gallery.loop(rec))[1]
        np.testing.assert_allclose(J.scale(0.5).todense(), 0.5 * J.todense(), atol=1e-15)
        np.testing.assert_allclose(J.transpose().scale(0.5).todense(), 0.5 * J.transpose().todense(), atol=1e-15)
        rows, columns = np.random.default_rng(0).standard_normal((2, *rec.shape))
        around = rows.reshape(4, 2, -1, 1) * columns.reshape(4, 2, 1, -1)
        for A in (J, J.transpose(), J.block(), J.diagonal(), J.lane_dense()):
            np.testing.assert_allclose(A.between(rows, columns).todense(), around * A.todense(), atol=1e-14)
            same = A.between(rows[:1, :1], columns[:1, :1]).todense()
            np.testing.assert_allclose(same, around[:1, :1] * A.todense(), atol=1e-14)
    a = Diagonal(np.array([[-3.0, 0.5, np.nan]]), rs.Layout(units=3)).clip(-1, 1).data
    np.testing.assert_array_equal(a, [[-1.0, 0.5, np.nan]])


# What each number may be: the words of its message, and values just outside.
NUMBERS = {
    ("adaptive_shooting", "block"): ("an integer >= 1, or None", 0),
    ("adaptive_shooting", "fall"): ("a number between 0 and 1", 0.0, 1.0),
    ("anderson", "memory"): ("an integer >= 1", 0),
    ("anderson", "ridge"): ("a finite number > 1e-15", 0.0),
    ("chain", "iterations"): ("an integer >= 1", 0),
    ("chord", "refresh"): ("an integer >= 1, or None", 0),
    ("damped_newton", "shrink"): ("a number between 0 and 1", 0.0, 1.0),
    ("damped_newton", "trials"): ("an integer >= 1", 0),
    ("damped_newton", "decrease"): ("a number between 0 and 1", 0.0, 1.0),
    ("elk", "damping"): ("a finite number >= 0, or None", -1e-9),
    ("elk", "trials"): ("an integer >= 1", 0),
    ("elk", "slow"): ("an integer >= 0, or None", -1),
    ("elk", "decrease"): ("a number between 0 and 1", 0.0, 1.0),
    ("gauss_seidel", "chunk"): ("an integer >= 1, or None", 0),
    ("levenberg_marquardt", "damping"): ("a finite number >= 0, or None", -1e-9),
    ("levenberg_marquardt", "trials"): ("an integer >= 1", 0),
    ("levenberg_marquardt", "slow"): ("an integer >= 0, or None", -1),
    ("levenberg_marquardt", "decrease"): ("a number between 0 and 1", 0.0, 1.0),
    ("mgrit", "block"): ("an integer >= 1, or None", 0),
    ("mgrit", "levels"): ("an integer >= 2", 1),
    ("multiple_shooting", "block"): ("an integer >= 1, or None", 0),
    ("newton_krylov", "dimension"): ("an integer >= 1", 0),
    ("newton_krylov", "forcing"): ("a number between 0 and 1", 0.0, 1.0),
    ("parareal", "block"): ("an integer >= 1, or None", 0),
    ("quasi_newton", "probes"): ("an integer >= 1", 0),
    ("quasi_newton", "seed"): ("an integer >= 0", -1),
    ("relaxed_newton", "omega"): ("a number between 0 and 2", 0.0, 2.0),
    ("scaled_newton", "k"): ("a number from 0 to 1", -1e-9, 1 + 1e-9),
    ("triangular_anderson", "memory"): ("an integer >= 1", 0),
    ("triangular_anderson", "ridge"): ("a finite number > 1e-15", 0.0),
    ("windowed", "window"): ("an integer >= 1", 0),
}


def test_the_table_has_every_number_that_can_be_set():
    settings = {(name, f.name): str(f.type) for name, solver in S.REGISTRY.items() for f in fields(solver)}
    assert {key for key, kind in settings.items() if kind.startswith(("int", "float"))} == set(NUMBERS)


@pytest.mark.parametrize(("method", "name"), sorted(NUMBERS))
def test_numbers_that_are_refused(method, name):
    wanted, *outside = NUMBERS[method, name]
    wrong = [*outside, -3, "0.5", "2", True, np.True_, np.nan, np.inf, -np.inf, 0.5j, [1], np.ones(2)]
    wrong += [1.5, 2.0, np.float64(3)] * ("integer" in wanted) + [None] * ("None" not in wanted)
    for value in wrong:
        with pytest.raises(ValueError) as caught:
            S.get(method, {name: value})
        assert str(caught.value) == f"{name} is {value!r}; wanted {wanted}"


@pytest.mark.parametrize(("method", "name"), sorted(NUMBERS))
def test_numbers_that_are_taken(method, name):
    wanted = NUMBERS[method, name][0]
    values = [2, np.int32(5)] if "integer" in wanted else [0.5, np.float32(0.25)]
    for value in [*values, *[None] * ("None" in wanted), *[0, 1, 1.0] * ("from 0 to 1" in wanted)]:
        assert getattr(S.get(method, {name: value}), name) is value


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: S.QuasiNewton(approximation="half"), "approximation is 'half'"),
        (lambda: S.Elk(approximation="dense"), "approximation is 'dense'"),
        (lambda: S.DampedNewton(rule="armijo"), "rule is 'armijo'"),
        (lambda: S.Parareal(coarse="mean"), "coarse is 'mean'"),
        (lambda: S.MGRIT(coarse="mean"), "coarse is 'mean'"),
        (lambda: S.MGRIT(relaxation="C"), "relaxation is 'C'"),
    ],
)
def test_words_that_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_solver_needs_a_name_and_a_matrix_and_no_more():
    assert (gallery.Fading.group, gallery.Fading.causal) == ("custom", True)
    rec = gallery.recurrence("gru", "dense")
    sol = rs.solve(rec, method=gallery.Fading())
    assert sol.success
    assert "fading" in repr(sol)


def test_every_solver_of_the_registry_is_in_a_group():
    assert {solver.group for solver in S.REGISTRY.values()} == set(S.GROUPS)


def test_guesses():
    rec = gallery.recurrence("gru", "dense")
    step = iterates(rec, "newton", guess="step")
    same(step, iterates(rec, "newton"))
    np.testing.assert_array_equal(iterates(rec, "newton", guess="zeros")[0], 0)
    np.testing.assert_array_equal(iterates(rec, "newton", guess=0.25)[0], 0.25)
    np.testing.assert_array_equal(iterates(rec, "newton", guess=np.full(8, 0.5))[0], 0.5)
    cold = rs.solve(rec, method="jacobi")
    warm = rs.solve(rec, method="jacobi", guess=cold)
    assert cold.nit > 20
    assert warm.nit == 0
    with pytest.raises(ValueError, match="guess is 'zeroes'"):
        rs.solve(rec, guess="zeroes")


@pytest.mark.parametrize("cell", [("gru", "dense"), ("lstm", "diagonal"), ("elman_relu", "dense")], ids="-".join)
def test_the_error_estimate_is_of_the_size_of_the_error(cell):
    rec = gallery.recurrence(*cell, gain=1.5)
    truth = gallery.loop(rec)
    for k in (20, 25, 30):
        sol = rs.solve(rec, method="jacobi", maxiter=k)
        error = np.abs(sol.states - truth).max()
        assert sol.error_estimate == pytest.approx(error, rel=0.5, abs=1e-14)


def test_a_state_that_is_none_is_refused():
    class Tuples(gallery.Fading):
        def init(self, problem, iterate):
            return (0, iterate)

    with pytest.raises(TypeError, match="init of Tuples returned a tuple; wanted a State, or None"):
        rs.solve(gallery.recurrence("gru", "dense"), method=Tuples())


def test_what_a_solver_works_on_is_said_by_its_type():
    rec = gallery.recurrence("gru", "dense", T=10)
    for name, method in S.REGISTRY.items():
        if issubclass(method, S.Solver):
            problem = S.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=method.needs_jacobian)
            iterate = method().start(problem)
            state = method().init(problem, iterate)
            after, _ = method().step(problem, iterate, state)
            assert {type(iterate), type(after)} == {S.Linearised if method.needs_jacobian else S.Iterate}, name


def test_a_file_in_the_folder_is_in_the_registry(tmp_path, monkeypatch):
    source = "from recsolve.solvers import Newton\nclass {0}(Newton):\n    name, group, place = '{1}', '{2}', {3}\n"
    for name, *rest in (
        ("B", "b", "globalised", 1),
        ("A", "a", "globalised", "float('inf')"),
        ("C", "c", "reference", 9),
    ):
        (tmp_path / f"{name.lower()}.py").write_text(source.format(name, *rest))
    monkeypatch.setattr(registry, "REGISTRY", {})
    monkeypatch.syspath_prepend(str(tmp_path.parent))
    monkeypatch.setitem(sys.modules, tmp_path.name, ModuleType(tmp_path.name))
    sys.modules[tmp_path.name].__path__ = [str(tmp_path)]
    registry.discover(tmp_path.name, [str(tmp_path)])
    assert list(registry.REGISTRY) == ["c", "b", "a"]  # by group, then place
    with pytest.raises(ValueError, match="name is 'c' in"):
        registry.discover(tmp_path.name, [str(tmp_path)])
    (tmp_path / "d.py").write_text(source.format("D", "d", "mine", 1))
    with pytest.raises(ValueError, match="group is 'mine'"):
        registry.discover(tmp_path.name, [str(tmp_path)])


def test_every_solver_is_an_attribute_of_the_package_and_so_for_type_checkers():
    stated = (Path(S.__file__)).read_text()
    for method in S.REGISTRY.values():
        assert getattr(S, method.__name__) is method
        assert re.search(rf"import .*\b{method.__name__}\b", stated)
        assert f'    "{method.__name__}",\n' in stated


def test_every_iteration_draws_signs_of_its_own():
    rec = gallery.recurrence("gru", "dense", T=3, units=4)
    J = rec.linearise(gallery.loop(rec))[1]
    problem = S.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
    drawn = []
    for count in range(3):
        problem.counts["njev"] = count
        drawn.append(hutchinson(problem, J.matvec, 1, 0).data)
    assert len({estimate.tobytes() for estimate in drawn}) == 3
    assert (hutchinson(problem, J.matvec, 1, 1).data != drawn[-1]).any()


def test_the_krylov_step_is_solved_the_better_the_smaller_the_residual():
    """Each iteration reduces the residual by the share the forcing asks for: fixed, that would be linear."""
    rec = gallery.recurrence("gru", "dense", T=60, gain=1.5)
    residuals = rs.solve(rec, method=S.NewtonKrylov(forcing=0.5, dimension=30), tol=1e-13).residuals
    small = residuals[:-1] < 1e-2
    assert small.sum() >= 2
    assert (residuals[1:][small] <= 1e-2 * residuals[:-1][small]).all()
