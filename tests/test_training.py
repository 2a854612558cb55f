"""Training runs: every task and kind of layer takes two steps, and a run that was stopped goes on bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

torch = pytest.importorskip("torch")

from recsolve.studies.command.train_cli import train  # noqa: E402
from recsolve.studies.store.configs import configured, to_toml  # noqa: E402
from recsolve.studies.training import checkpoint, networks  # noqa: E402
from recsolve.studies.training.config import TrainConfig  # noqa: E402
from recsolve.studies.training.loop import torch_step  # noqa: E402
from recsolve.studies.training.modules import Network  # noqa: E402
from recsolve.studies.training.tasks import TASKS  # noqa: E402
from recsolve.studies.training.train import Run  # noqa: E402

SMALL = TrainConfig(
    task="parity", memory=3, units=8, layers=2, heads=2, length=32, batch=3, steps=4, report=1, save=0, held_out=2
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of so little work wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(config, folder=None, stop=None):
    run = Run(config, folder)
    rows = []
    for row in run.rows():
        rows.append(row)
        if row["step"] == stop:
            break
    return run, rows


def weights(run):
    return {name: x.clone() for name, x in run.network.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(x, second[name]) for name, x in first.items())


@pytest.mark.parametrize("task", TASKS)
def test_every_task_takes_two_steps(task):
    if task == "digits":
        pytest.importorskip("sklearn")
    config = replace(SMALL, task=task, steps=2, length=64)
    before = weights(Run(config))
    run, rows = trained(config)
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert np.isfinite(rows[-1]["held_out_loss"])
    assert not same(before, weights(run))


@pytest.mark.parametrize(
    ("cell", "mixing"),
    [
        ("pararnn_lstm", "diagonal"),
        ("slstm", "heads"),
        ("gru", "dense"),
        ("minmax", "diagonal"),
        ("affine", "diagonal"),
    ],
)
def test_parallel_layers_and_the_plain_loop_are_one_function_with_one_gradient(cell, mixing):
    config = replace(SMALL, cell=cell, mixing=mixing, tol=1e-12)
    found = {}
    for layer in ("recsolve", "loop"):
        torch.manual_seed(0)
        network = Network(replace(config, layer=layer)).double()
        inputs = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (32, 3)))
        scores = network(inputs)
        scores.square().sum().backward()
        found[layer] = scores.detach(), {name: p.grad for name, p in network.named_parameters()}
    (scores, gradients), (wanted, wanted_gradients) = found["recsolve"], found["loop"]
    torch.testing.assert_close(scores, wanted, rtol=1e-9, atol=1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted_gradients[name], rtol=1e-7, atol=1e-7, msg=name)


def test_training_learns_what_three_bits_ask_for():
    config = replace(SMALL, memory=2, units=24, steps=60, report=60, batch=16, rate=0.02, mixing="dense", cell="gru")
    _, rows = trained(config)
    assert rows[-1]["held_out_right"] > 0.95


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, dropout):
    config = replace(SMALL, dropout=dropout)
    whole, rows = trained(config, tmp_path / "whole")
    trained(config, tmp_path / "parts", stop=2)
    run, rest = trained(config, tmp_path / "parts")
    assert [row["step"] for row in rest] == [3, 4]
    assert [row["loss"] for row in rest] == [row["loss"] for row in rows[2:]]
    assert same(weights(run), weights(whole))
    assert [row["step"] for row in run.log()] == [1, 2, 3, 4]


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path):
    config = replace(SMALL, save=2)
    whole, _ = trained(config)
    killed = Run(config, tmp_path)
    killed._save = lambda: checkpoint.save(killed.folder / "checkpoint.safetensors", killed.network, killed.optimizer,
                                           killed.step, [], config) if killed.step == 2 else None  # fmt: skip
    for row in killed.rows():
        if row["step"] == 3:
            break
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')  # the line that was being written
    run = Run(config, tmp_path)
    assert run.step == 2
    assert [row["step"] for row in run.log()] == [1, 2]
    list(run.rows())
    assert same(weights(run), weights(whole))


def test_lines_of_the_log_are_the_same_of_a_run_that_was_stopped_between_them(tmp_path):
    config = replace(SMALL, report=4)
    _, whole = trained(config)

    def stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Run(config, tmp_path).rows(stop))
    _, rest = trained(config, tmp_path)
    assert [row["loss"] for row in rest] == [row["loss"] for row in whole]


def test_a_run_can_be_made_longer_but_not_another(tmp_path):
    trained(replace(SMALL, warmup=0.0), tmp_path)
    assert Run(replace(SMALL, warmup=0.0, steps=6), tmp_path).step == 4
    with pytest.raises(ValueError, match="holds a run of another config, without seed = 1; wanted an empty folder"):
        Run(replace(SMALL, warmup=0.0, seed=1), tmp_path)


def test_a_checkpoint_of_another_network_is_refused_and_changes_nothing(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    run, _ = trained(SMALL, tmp_path)
    other = Run(replace(SMALL, units=16))
    before = weights(other)
    with pytest.raises(ValueError, match=r"holds another network: answer\.weight is \(2, 8\), wanted \(2, 16\)"):
        checkpoint.restore(checkpoint.read(path), other.network, other.optimizer, path)
    assert same(before, weights(other))
    assert run.step == 4


@pytest.mark.parametrize("kind", ["pickle", "cut", "foreign"])
def test_what_is_no_checkpoint_is_refused_and_never_unpickled(tmp_path, kind):
    path = tmp_path / "checkpoint.safetensors"
    run, _ = trained(SMALL, tmp_path)
    if kind == "pickle":
        torch.save(run.network.state_dict(), path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        from safetensors.torch import save_file

        save_file(run.network.state_dict(), path)
    with pytest.raises(ValueError, match="wanted a checkpoint of recsolve train"):
        Run(SMALL, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_before_the_weights_are_lost(tmp_path):
    run = Run(SMALL, tmp_path)
    with torch.no_grad():
        run.network.answer.bias[0] = float("nan")
    with pytest.raises(ArithmeticError, match="the loss of step 1 is nan; lower rate, or set clip"):
        list(run.rows())
    assert checkpoint.read(tmp_path / "checkpoint.safetensors").step == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": "x"}, "task is 'x'; wanted one of"),
        ({"cell": "x"}, "cell is 'x'; wanted one of"),
        ({"mixing": "x"}, "mixing is 'x'; wanted one of diagonal"),
        ({"layer": "torch", "cell": "mgu"}, "layer is 'torch' with cell 'mgu'"),
        ({"mixing": "heads", "heads": 3}, "units is 8; wanted a multiple of heads, 3"),
        ({"length": 0}, "length is 0; wanted 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; wanted at least 0 and less than 1"),
        ({"precision": "float8"}, "precision is 'float8'; wanted float32 or bfloat16"),
    ],
)
def test_a_config_of_which_there_is_no_run_names_the_key(given, says):
    with pytest.raises(ValueError, match=says):
        replace(SMALL, **given)


def test_a_config_survives_toml():
    assert configured(TrainConfig(), to_toml(SMALL)) == SMALL


def test_the_learning_rate_rises_and_falls():
    config = replace(SMALL, steps=100, warmup=0.1, rate=1.0)
    rates = [config.learning_rate(step) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert rates[0] < 0.1 < max(rates) <= 1.0
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_the_affine_cell_keeps_the_size_of_what_drives_it():
    step = torch_step(networks.AFFINE, {})
    rng = torch.Generator().manual_seed(0)
    (h,), states = (torch.zeros(4096),), []
    for _ in range(60):
        u = {"h": torch.randn(4096, generator=rng)}
        (h,) = step({"h": h}, {}, u, {"rate": torch.full((4096,), -2.0)})
        states.append(h)
    assert states[-1].std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": "nope"}, "task is 'nope'; wanted one of text, parity"),
        ({"settings": ["units=x"]}, "units is 'x'; wanted int"),
        ({"device": "tpu"}, "device is 'tpu'; wanted cpu, cuda, or cuda:0"),
        ({"config": Path("nowhere.toml")}, "--config nowhere.toml cannot be read"),
        ({"out": Path(__file__)}, "is a file; wanted a folder"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys, given, says):
    arguments = {"task": None, "config": None, "settings": None, "out": tmp_path, "device": "cpu"}
    with pytest.raises(typer.Exit) as exit_:
        train(**{**arguments, **given}, show=False, as_json=False)
    assert exit_.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device is 'cuda', but torch sees no GPU here; wanted cpu"):
        Run(SMALL, device="cuda")


def test_the_command_trains_and_goes_on(tmp_path, capsys):
    settings = ["units=8", "layers=1", "length=16", "batch=2", "report=1", "memory=2"]
    arguments = {"task": "parity", "config": None, "out": tmp_path, "device": "cpu", "show": False}
    train(**arguments, settings=[*settings, "steps=1"], as_json=True)
    assert json.loads(capsys.readouterr().out)["step"] == 1
    train(**arguments, settings=[*settings, "steps=2"], as_json=False)
    shown = capsys.readouterr()
    assert "has 1 of 2 steps" in shown.err
    assert "step 2, loss " in shown.out
    assert "completed by the loop" in shown.out
    train(**{**arguments, "show": True}, settings=settings, as_json=False)
    assert configured(TrainConfig(), capsys.readouterr().out).memory == 2
