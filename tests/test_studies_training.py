"""What the studies of training claim, on their tiny grids."""

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of so little work wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_layers_in_parallel_learn_what_the_plain_loop_does(ran):
    facts, data = ran("training")
    assert facts["diagonal GRU.loss"] == pytest.approx(facts["plain loop.loss"], rel=1e-4)
    assert facts["diagonal GRU.weights"] == facts["plain loop.weights"]
    assert (data["held_out_loss"].sel(kind="diagonal GRU") > 0).all()


def test_networks_have_about_as_many_weights(ran):
    facts, data = ran("training")
    counts = [facts[f"{kind}.weights"] for kind in data["kind"].values]
    assert max(counts) < 2.5 * min(counts)


def test_gradients_of_solves_that_are_cut_short_are_compared_with_whole_ones(ran):
    facts, _ = ran("training")
    errors = facts["three iterations.gradient_error"]
    assert len(errors) == 4
    assert all(0 <= error < 1e-3 for error in errors)


def test_networks_are_looked_at_while_they_train(ran):
    facts, data = ran("training")
    for name in ("newton", "condition", "exponent"):
        assert len(facts[f"diagonal GRU.{name}"]) == len(data["step"])
    assert facts["diagonal GRU.leaves"] is None
    assert all(exponent < 0 for exponent in facts["diagonal GRU.exponent"])


def test_constants_of_time_are_those_of_the_layer(ran):
    facts, data = ran("curriculum")
    assert (data["tau"] > 1).all()
    assert (data["tau_largest"] >= data["tau"]).all()
    assert facts["parity.one head.tau"][0] == pytest.approx(1.2, abs=0.05)
    assert facts["parity.one head.newton"][0] >= 2


def test_both_curricula_begin_as_one(ran):
    facts, _ = ran("curriculum")
    assert facts["parity.one head.right"][0] == facts["parity.many heads.right"][0]


def test_words_of_a_group_need_a_nonlinear_recurrence_whose_units_couple(ran):
    facts, _ = ran("word_problem")
    assert min(facts["dense GRU"]) > 0.9
    assert max(facts["affine"]) < 0.6


def test_options_that_keep_solves_short_are_measured_against_training_as_it_is(ran):
    facts, data = ran("spectral")
    plain, clipped = facts["6.as it is.newton"], facts["6.clipped.newton"]
    assert clipped[0] == plain[0]  # before the first step
    assert max(clipped[1:]) < min(plain[1:])
    assert facts["6.clipped.completed"] < facts["6.as it is.completed"] == 1
    assert facts["shortest"] in ("initialised", "clipped")
    assert facts["hardest"] == 6
    assert facts["6.as it is.outside"] > 0
    assert (data["quasi_newton"] >= 1).all()
    assert (data["condition"] >= 1).all()
    assert data["seconds"].sel(care="initialised", step=0).item() > 0  # its search for a scale counts


@pytest.fixture
def cared():
    from recsolve.studies.training.care import Care, CaredRun
    from recsolve.studies.training.config import TrainConfig

    config = TrainConfig("parity", cell="elman", mixing="dense", units=12, layers=1, length=32, batch=2, norm=False)
    return lambda **care: CaredRun(config, Care(**care), gain=4.0)


def _weight(run):
    (weight,) = (w for name, w in run.network.layers.named_parameters() if ".mixing_" in name)
    return weight.detach().clone()


def test_a_run_with_care_begins_at_the_gain_or_at_the_exponent(cared):
    from recsolve.nn import exponents
    from recsolve.studies.training.train import TRAINING, Run

    plain, begun = cared(), cared(exponent=-0.3)
    assert torch.equal(_weight(plain), 4 * _weight(Run(plain.config)))
    x = begun.network.embedding(torch.from_numpy(begun.draw(TRAINING, 0)[0])).detach()
    assert exponents(begun.network.layers, x)[0] == pytest.approx(-0.3, abs=0.02)
    assert begun.prepared > plain.prepared == 0


def test_a_run_with_care_is_penalised_in_training_alone_and_clipped_after_each_step(cared):
    plain, penalised, clipped = cared(), cared(weight=1.0, ceiling=-2.0), cared(norm=0.5)
    assert penalised.evaluate() == plain.evaluate()
    assert penalised.descend() > plain.descend() + 0.1
    clipped.descend()
    assert torch.linalg.matrix_norm(_weight(plain), 2) > 1
    assert torch.linalg.matrix_norm(_weight(clipped), 2) <= 0.5 + 1e-5
