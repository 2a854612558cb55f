"""Torch over a time axis that ranks share: nodes of autograd, modules and layers, and both kinds of parallelism at once."""

import numpy as np
import pytest
from ranks import over

import recsolve as rs

torch = pytest.importorskip("torch")

LENGTHS = {1: (9,), 2: (5, 4), 3: (4, 0, 5), 4: (0, 1, 6, 2)}
T, B, D, N = 9, 3, 3, 4


def _tensor(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape)).requires_grad_()


def _leaves(name, rng):
    """Return a function that makes a recurrence of tensors, and these."""
    given = {"x": _tensor(rng, T, B, D), "initial": _tensor(rng, B, N)}
    definition = rs.cells.get(name)
    drawn = definition.random(input_size=D, hidden_size=N, rng=0)
    names = [*drawn.projection.weights]
    given |= {f"w_{n}": torch.from_numpy(w).requires_grad_() for n, w in drawn.projection.weights.items()}
    given |= {f"b_{n}": torch.from_numpy(b).requires_grad_() for n, b in drawn.projection.biases.items()}
    given |= {f"m_{n}": torch.from_numpy(m.weight).requires_grad_() for n, m in drawn.mixings.items()}

    def make(given, x, reset):
        cell = definition.with_weights(
            mixings={n: rs.mixings.Dense(given[f"m_{n}"]) for n in drawn.mixings},
            parameters={n: torch.from_numpy(p) for n, p in drawn.parameters.items()},
            projection=rs.Projection({n: given[f"w_{n}"] for n in names}, {n: given[f"b_{n}"] for n in names}),
        )
        return cell.recurrence(x, initial=given["initial"], reset=reset)

    return make, given


def solves(group, lengths):
    """Return the largest difference to one device, of everything that is shown and of every gradient, by case."""
    import torch.distributed as dist

    rank, off = dist.get_rank(group), {}
    for method in ("auto", "newton", "sequential"):
        for mask in (False, True):
            rng = np.random.default_rng(5)
            make, given = _leaves("gru", rng)
            reset = torch.zeros(T, B, dtype=torch.bool)
            reset[3, 0] = reset[5] = mask
            a, b, c = (torch.from_numpy(rng.standard_normal(s)) for s in ((T, B, N), (T, B, N), (B, N)))
            one = rs.solve(make(given, given["x"], reset), method="sequential")
            (one.states * a).sum().add((one.output * b).sum()).add((one.final * c).sum()).backward()
            wanted = {n: x.grad.clone() for n, x in given.items()}
            for x in given.values():
                x.grad = None
            shards = [rs.distributed.shard(x, group, lengths=lengths) for x in (given["x"], reset, a, b)]
            found = rs.solve(make(given, shards[0], shards[1]), method=method)
            loss = (found.states.local * shards[2].local).sum() + (found.output.local * shards[3].local).sum()
            (loss + (found.final * c).sum() / len(lengths)).backward()
            axis = shards[0].timeline
            worst = [(found.output.local - one.output[axis.start : axis.stop]).abs().sum()]
            worst.append((found.final - one.final).abs().max())
            for n, x in given.items():
                grad = torch.zeros_like(x) if x.grad is None else x.grad.clone()
                dist.all_reduce(grad, group=group)
                worst.append((grad - wanted[n]).abs().max())
            off[method, mask] = float(torch.stack(worst).max())
    return off


@pytest.mark.parametrize("size", [1, 3, 4])
def test_gradients_of_a_solve_over_ranks_add_up_to_those_of_one_device(size):
    for off in over(size, solves, LENGTHS[size]):
        for case, worst in off.items():
            assert worst < 1e-9, case
