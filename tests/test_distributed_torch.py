"""Torch over a time axis that ranks share: nodes of autograd, modules and layers, alone and in a mesh with DDP."""

import pickle
from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest
from ranks import over

import recsolve as rs

torch = pytest.importorskip("torch")

LENGTHS = {2: (5, 4), 3: (4, 0, 5), 4: (0, 1, 6, 2)}
T, B, D, N = 9, 3, 3, 4


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch, request):
    """Every rank would compile for itself; what is tested here is above the backends."""
    if "gpu" not in request.keywords:
        monkeypatch.setenv("RECSOLVE_BACKEND", "numpy")


def _tensor(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape)).requires_grad_()


def _added(group, x):
    """Return the sum of gradients over ranks."""
    import torch.distributed as dist

    grad = torch.zeros_like(x) if x.grad is None else x.grad.clone()
    dist.all_reduce(grad, group=group)
    return grad


def _farthest(found, wanted):
    """Return the largest difference of tensors; NaN where there is one."""
    pairs = [(a.detach(), b.detach()) for a, b in zip(found, wanted, strict=True)]
    return float(torch.stack([(a - b).abs().sum() for a, b in pairs]).max())


def _forget(tensors):
    for x in tensors:
        x.grad = None


def _gru(rng):
    """Return a function that makes a recurrence on x of tensors, and these."""
    module = torch.nn.GRU(D, N).double()
    given = {"x": _tensor(rng, T, B, D), "initial": _tensor(rng, B, N), **dict(module.named_parameters())}

    def make(x, reset):
        return rs.cells.GRU.from_torch(module).recurrence(x, initial=given["initial"], reset=reset)

    return make, given


def _function(rng):
    """Return the same of a function with a parameter and a readout of its own."""
    given = {"x": _tensor(rng, T, B, N), "initial": _tensor(rng, B, N), "a": _tensor(rng, N)}

    def make(x, reset):
        return rs.Recurrence.from_function(
            lambda h, u, p: np.tanh(0.5 * h * p["a"] + u), inputs=x, initial=given["initial"], reset=reset,
            parameters={"a": given["a"]}, structure="diagonal", readout=lambda h, u, p: h * u * p["a"],
        )  # fmt: skip

    return make, given


def solves(group, lengths):
    """Return the largest difference to one device, of everything that is shown and of every gradient, by case."""
    off = {}
    for method, mask, made in product(("auto", "newton", "sequential"), (False, True), (_function, _gru)):
        rng = np.random.default_rng(5)
        torch.manual_seed(5)
        make, given = made(rng)
        reset = torch.zeros(T, B, dtype=torch.bool)
        reset[3, 0] = reset[5] = mask
        a, b, c = (torch.from_numpy(rng.standard_normal(s)) for s in ((T, B, N), (T, B, N), (B, N)))
        one = rs.solve(make(given["x"], reset), method="sequential")
        (one.states * a).sum().add((one.output * b).sum()).add((one.final * c).sum()).backward()
        wanted = {n: x.grad.clone() for n, x in given.items()}
        _forget(given.values())
        shards = [rs.distributed.shard(x, group, lengths=lengths) for x in (given["x"], reset, a, b)]
        found = rs.solve(make(*shards[:2]), method=method)
        loss = (found.states.local * shards[2].local).sum() + (found.output.local * shards[3].local).sum()
        (loss + (found.final * c).sum() / len(lengths)).backward()
        axis = shards[0].timeline
        seen = found.output.local, found.final, *(_added(group, x) for x in given.values())
        right = one.output[axis.start : axis.stop], one.final, *wanted.values()
        off[method, mask, made.__name__] = _farthest(seen, right)
        if axis.start and not mask:  # h[0] is seen by the first step alone
            assert not given["initial"].grad.any()
    assert pickle.loads(pickle.dumps(found)).success
    return off


@pytest.mark.parametrize("size", [2, 4])
def test_gradients_of_a_solve_over_ranks_add_up_to_those_of_one_device(size):
    for off in over(size, solves, LENGTHS[size]):
        for case, worst in off.items():
            assert worst < 1e-9, case


def numbers(group):
    """Return the gradients of what has no axes, of ranks and of one device: a parameter, and where scans begin."""
    rng = np.random.default_rng(3)
    x, b, c = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((T, N), T, T))

    def solved(x, c):
        rec = rs.Recurrence.from_function(
            lambda h, u, p: np.tanh(p["a"] * h + u), inputs=x, initial=torch.zeros(N).double(), structure="diagonal",
            parameters={"a": torch.tensor(0.5).double()},
        )  # fmt: skip
        return rs.adjoint(rs.solve(rec), states=c).parameters.a

    def scanned(b, c):
        start = torch.tensor(2.0).double()
        y = rs.scan("affine", (0.5, b), initial=start)
        return rs.scan_adjoint("affine", (0.5, b), y, c, initial=start).initial

    def share(x):
        return rs.distributed.shard(x, group)

    return solved(share(x), share(x)), solved(x, x), scanned(share(b), share(c)), scanned(b, c)


def test_gradients_of_numbers_are_tensors_on_ranks_too():
    for found in over(3, numbers):
        assert {(type(x), x.shape) for x in found} == {(torch.Tensor, ())}
        assert all(torch.isclose(a, b) for a, b in zip(found[::2], found[1::2], strict=True))


LAYERS = {
    "GRU": lambda: rs.nn.GRU(D, N, num_layers=2, bidirectional=True, dropout=1e-300),
    "LSTM": lambda: rs.nn.LSTM(D, N, proj_size=2, bidirectional=True, method="newton"),
    "RNN": lambda: rs.nn.RNN(D, N, nonlinearity="relu", method="jacobi", on_failure="raise"),
    "diagonal": lambda: rs.nn.Recurrent(
        "elman", D, N, mixing="diagonal", num_layers=2, norm=True, residual=True, bidirectional=True
    ),
    "heads": lambda: rs.nn.Recurrent("slstm", D, N, mixing="heads", heads=2, method="sequential"),
}


def _loss(y, final, weights):
    parts = final if isinstance(final, tuple) else (final,)
    return sum((x * w).sum() for x, w in zip((y, *parts), weights, strict=True))


def layers(group, lengths):
    """Return the largest difference of a layer to itself on one device, of results and of all gradients, by case."""
    off = {}
    for name, make in LAYERS.items():
        cases = [(True, True, False), (False, False, True)]  # with resets, from hx, a sequence without a batch
        for reset, begun, alone in cases[: 1 + (name in ("LSTM", "diagonal"))]:
            torch.manual_seed(3)
            layer = make().double()
            x = torch.randn(*((T, D) if alone else (T, B, D)), dtype=torch.float64, requires_grad=True)
            mask = torch.rand(x.shape[:-1]) < 0.3 if reset else None
            y, final = layer(x, reset=mask)
            parts = final if isinstance(final, tuple) else (final,)
            hx = tuple(torch.randn_like(part).requires_grad_() for part in parts) if begun else None
            given = None if hx is None else hx if len(hx) > 1 else hx[0]
            y, final = layer(x, given, reset=mask)
            weights = [torch.randn_like(part) for part in (y, *parts)]
            leaves = [x, *(hx or ()), *layer.parameters()]
            wanted = [y, *parts] = [y, *(final if isinstance(final, tuple) else (final,))]
            wanted += torch.autograd.grad(_loss(y, final, weights), leaves)
            shared = rs.distributed.shard(x, group, lengths=lengths)
            cut = None if mask is None else rs.distributed.shard(mask, group, lengths=lengths)
            own, ends = layer(shared, given, reset=cut)
            here = slice(shared.timeline.start, shared.timeline.stop)
            mine = [weights[0][here], *(w / len(lengths) for w in weights[1:])]
            _loss(own.local, ends, mine).backward()
            with torch.no_grad():
                silent = layer(shared, given, reset=cut)[0]
            assert torch.equal(silent.local, own.local.detach())
            found = [own.local, *(ends if isinstance(ends, tuple) else (ends,)), *(_added(group, p) for p in leaves)]
            wanted[0] = wanted[0][here]
            off[name, reset, begun, alone] = _farthest(found, wanted)
    return off


def test_layers_over_ranks_are_those_of_one_device():
    for off in over(3, layers, LENGTHS[3]):
        for case, worst in off.items():
            assert worst < 1e-9, case


def ends_of_nothing(group):
    """Return the final states of layers over no steps, and those that they began with."""
    found, x = [], rs.distributed.shard(torch.zeros(0, B, D), group)
    for proj, begun in ((2, True), (2, False), (0, True)):
        hx = tuple(torch.randn(2, B, n) for n in (proj or N, N)) if begun else None
        ends = rs.nn.LSTM(D, N, proj_size=proj, bidirectional=True)(x, hx)[1]
        wanted = hx or tuple(torch.zeros(2, B, n) for n in (proj or N, N))
        found += [torch.equal(a, b) for a, b in zip(ends, wanted, strict=True)]
    return found


def test_layers_over_no_steps_end_as_they_began():
    assert all(map(all, over(2, ends_of_nothing)))


MODULES = {
    "GRU": lambda: torch.nn.GRU(D, N, num_layers=2, bidirectional=True),
    "LSTM proj": lambda: torch.nn.LSTM(D, N, proj_size=2, bidirectional=True),
    "RNN": lambda: torch.nn.RNN(D, N),
}


def modules(group, lengths):
    """Return the same of rs.run of modules of torch, which are their own oracles; by a layer's own resets."""
    off = {}
    for name, make in MODULES.items():
        torch.manual_seed(4)
        module = make().double()
        x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
        hx = module(x)[1]
        hx = tuple(torch.randn_like(h).requires_grad_() for h in (hx if isinstance(hx, tuple) else (hx,)))
        given = hx if len(hx) > 1 else hx[0]
        y, final = module(x, given)
        parts = final if isinstance(final, tuple) else (final,)
        weights = [torch.randn_like(part) for part in (y, *parts)]
        leaves = [x, *hx, *module.parameters()]
        shared = rs.distributed.shard(x, group, lengths=lengths)
        here = slice(shared.timeline.start, shared.timeline.stop)
        wanted = [y[here], *parts, *torch.autograd.grad(_loss(y, final, weights), leaves)]
        own, ends = rs.run(module, shared, given)
        _loss(own.local, ends, [weights[0][here], *(w / len(lengths) for w in weights[1:])]).backward()
        found = [own.local, *(ends if isinstance(ends, tuple) else (ends,)), *(_added(group, p) for p in leaves)]
        off[name] = _farthest(found, wanted)
        mask = torch.rand(T, B) < 0.3
        plain = rs.run(module.eval(), x.detach(), reset=mask)
        silent = x.detach().numpy(), mask.numpy()  # arrays of NumPy are taken by Layers.run
        cut = [rs.distributed.shard(part, group, lengths=lengths) for part in silent]
        again = rs.Layers.from_torch(module).map(np.asarray).run(cut[0], reset=cut[1])
        off[name, "reset"] = float(abs(again[0].local - plain[0][here].numpy()).sum())
    return off


def test_modules_of_torch_over_ranks_are_those_of_one_device():
    for off in over(3, modules, LENGTHS[3]):
        for case, worst in off.items():
            assert worst < 1e-9, case


def scans(group, lengths):
    """Return the same of scans, forwards and backwards."""
    off = {}
    for monoid, reverse in (("affine", False), ("affine", True), ("max_plus", False), ("clamp", True)):
        torch.manual_seed(5)
        a, b, start = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((T, 2), (T, 2), (2,)))
        mask, weight = torch.rand(T) < 0.3, torch.randn(T, 2, dtype=torch.float64)
        y = rs.scan(monoid, (a, b), initial=start, reset=mask, reverse=reverse)
        wanted = [*torch.autograd.grad((y * weight).sum(), (a, b, start))]
        parts = [rs.distributed.shard(x, group, lengths=lengths) for x in (a, b, mask, weight)]
        own = rs.scan(monoid, [*parts[:2]], initial=start, reset=parts[2], reverse=reverse)
        (own.local * parts[3].local).sum().backward()
        found = [own.local, *(_added(group, x) for x in (a, b, start))]
        axis = own.timeline
        off[monoid, reverse] = _farthest(found, [y[axis.start : axis.stop], *wanted])
        with torch.no_grad():
            assert torch.equal(
                rs.scan(monoid, (*parts[:2],), initial=start, reset=parts[2], reverse=reverse).local, own.local
            )
    return off


def test_gradients_of_scans_over_ranks_add_up_to_those_of_one_device():
    for off in over(3, scans, LENGTHS[3]):
        for case, worst in off.items():
            assert worst < 1e-12, case


class Model(torch.nn.Module):
    """Symbols to numbers: an embedding, a layer over steps that ranks may share, a head."""

    def __init__(self, bidirectional=False):
        super().__init__()
        self.embed = torch.nn.Embedding(5, D)
        self.layer = rs.nn.GRU(D, N, num_layers=2, bidirectional=bidirectional)
        self.head = torch.nn.Linear(N * (1 + bidirectional), 2)

    def forward(self, ids):
        if not isinstance(ids, rs.distributed.Shard):
            return self.head(self.layer(self.embed(ids))[0])
        y, _ = self.layer(rs.distributed.Shard(self.embed(ids.local), ids.timeline))
        return rs.distributed.Shard(self.head(y.local), ids.timeline)


def _trained(model, batches, step):
    """Return the weights after steps of SGD, each of which sums the gradients of two halves of a batch."""
    for halves in batches:
        step(halves)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
        _forget(model.parameters())
    return [p.detach() for p in model.parameters()]


def meshes(group):
    """Train over sequences and time; return the largest difference of weights to those of one device, by way."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.nn.parallel import DistributedDataParallel

    mesh, length, off = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "sp")), 8, {}
    mine, time = slice(mesh.get_local_rank("dp"), None, 2), mesh["sp"].get_group()
    parts = (rs.distributed.shard(torch.zeros(length), group) for group in (time, mesh["sp"]))
    assert len({part.timeline for part in parts}) == 1
    with pytest.raises(ValueError, match=r"group is DeviceMesh.*wanted the axis of time alone, as mesh\['time'\]"):
        rs.distributed.shard(torch.zeros(length), mesh)
    torch.manual_seed(6)
    ids, target = torch.randint(5, (2, 2, length, 4)), torch.randn(2, 2, length, 4, 2, dtype=torch.float64)
    batches = [list(zip(*pair, strict=True)) for pair in zip(ids, target, strict=True)]

    def whole(model):
        def step(halves):
            for x, y in halves:
                (model(x) - y).square().mean().backward()

        return _trained(model, batches, step)

    def loss_of(model, x, y):
        x, y = (rs.distributed.shard(part[:, mine], time) for part in (x, y))
        return (model(x).local - y.local).square().mean()  # of parts of equal size, over which DDP takes the mean

    def ddp(model, accumulate=True, **settings):
        wrapped = DistributedDataParallel(model, **settings)

        def step(halves):
            with wrapped.no_sync() if accumulate else nullcontext():
                loss_of(wrapped, *halves[0]).backward()
            loss_of(wrapped, *halves[1]).backward()

        return _trained(model, batches, step)

    def reduced(model):
        def step(halves):
            for x, y in halves:  # parts of other sizes: the sum, over the number of all
                x, y = (rs.distributed.shard(part[:, mine], time, lengths=(5, 3)) for part in (x, y))
                (dist.get_world_size() * (model(x).local - y.local).square().sum() / (length * 4 * 2)).backward()
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()

        return _trained(model, batches, step)

    ways = {
        "DDP": lambda model: ddp(model, bucket_cap_mb=1e-6), "all-reduce": reduced,
        "static": lambda model: ddp(model, accumulate=False, static_graph=True),
    }  # fmt: skip
    for way, train in ways.items():
        models = []
        for _ in range(2):
            torch.manual_seed(7)
            models.append(Model(bidirectional=way == "all-reduce").double())
        off[way] = _farthest(train(models[0]), whole(models[1]))
    return off


def test_sequences_and_time_over_a_mesh_train_as_one_device_does():
    for off in over(4, meshes):
        for way, worst in off.items():
            assert worst < 1e-10, way


def _said(call):
    """Return the kind and the text of what a call raises."""
    try:
        call()
    except (TypeError, ValueError, RuntimeError) as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def refusals(group):
    """Return what is said of what ranks do not do, in the order of WORDS; then that nothing is out of step."""
    import torch.distributed as dist

    from recsolve.distributed import Shard, shard

    x = shard(torch.randn(6, B, D), group)
    layer, module = rs.nn.GRU(D, N), torch.nn.GRU(D, N)
    own, batch = x.local, rs.nn.GRU(D, N, batch_first=True)
    wrong = torch.zeros(1, B + dist.get_rank(group), N)

    def watched():
        with rs.nn.watched(layer):
            layer(x)

    def twice():
        leaf = own.clone().requires_grad_()
        y = layer(Shard(leaf, x.timeline))[0].local
        (g,) = torch.autograd.grad(y.sum(), leaf, create_graph=True)
        g.sum().backward()

    def unmet():
        short = rs.nn.GRU(D, N, method="jacobi", maxiter=0, on_failure="raise")
        try:
            short(x)
        finally:
            assert short.counters.unmet == 1

    calls = [
        lambda: rs.nn.GRU(D, N, every=2)(x), lambda: rs.nn.GRU(D, N, cotangent_clamp=1.0)(x),
        lambda: rs.nn.GRU(D, N, kappa=True)(x), watched, lambda: batch(x), lambda: layer(x, lengths=[1, 2, 3]),
        lambda: layer(x, cu_seqlens=[0, 6]), lambda: layer(x, reset=torch.zeros(6, dtype=torch.bool)),
        lambda: layer(Shard(own[:1], x.timeline)), lambda: layer(Shard(own.numpy(), x.timeline)), twice, unmet,
        lambda: rs.run(module, x, lengths=[1, 2, 3]), lambda: rs.run(torch.nn.GRU(D, N, batch_first=True), x),
        lambda: rs.run(module, Shard(own[:1], x.timeline)), lambda: rs.Layers.from_torch(module).solve(x),
        lambda: layer(x, wrong), lambda: rs.run(module, x, wrong),
        lambda: torch.compile(layer, backend="eager", fullgraph=True)(x),
    ]  # fmt: skip
    found = [_said(call) for call in calls]
    warned = rs.nn.GRU(D, N, method="jacobi", maxiter=0, on_failure="warn")
    with pytest.warns(rs.nn.ConvergenceWarning):
        y = warned(x)[0].local
    y.sum().backward()
    empty = shard(torch.zeros(0, B, D), group)
    start = torch.randn(1, B, N, requires_grad=True)
    y, final = layer(empty, start)
    final.sum().backward()
    assert y.shape == (0, B, N)
    assert torch.equal(final, start)
    assert bool((start.grad == 1).all())
    return found, torch.isfinite(layer(x)[0].local).all().item()


WORDS = [
    ("ValueError", "every"), ("ValueError", "cotangent_clamp"), ("ValueError", "kappa"), ("ValueError", "watched"),
    ("ValueError", "batch_first"), ("ValueError", "lengths"), ("ValueError", "cu_seqlens"), ("TypeError", "reset"),
    ("ValueError", "shape (1, "), ("TypeError", "ndarray"), ("TypeError", "second derivatives"),
    ("ConvergenceError", ""), ("ValueError", "lengths"), ("ValueError", "batch_first"), ("ValueError", "shape (1, "),
    ("TypeError", "Layers.run"), ("ValueError", "hx"), ("ValueError", "hx"), ("Unsupported", "messages"),
]  # fmt: skip


def test_what_ranks_do_not_do_is_refused_and_a_fault_of_one_ends_all():
    for rank, (said, finite) in enumerate(over(2, refusals)):
        for (kind, text), (wanted, word) in zip(said, WORDS, strict=True):
            assert word in text, (kind, text)
            # rank 1 alone has an hx that does not fit
            assert kind == ("RankError" if word == "hx" and not rank else wanted), (kind, text)
        assert finite


@pytest.mark.gpu
def test_on_a_gpu_layers_over_ranks_are_those_of_one_device():
    import torch.distributed as dist

    torch.manual_seed(8)
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for make in LAYERS.values():
            layer, x = make().cuda().double(), torch.randn(T, B, D, dtype=torch.float64, device="cuda")
            mask = torch.rand(T, B, device="cuda") < 0.3
            wanted = layer(x, reset=mask)
            found = layer(rs.distributed.shard(x), reset=rs.distributed.shard(mask))
            assert _farthest([found[0].local], [wanted[0]]) < 1e-9
            grads = [torch.autograd.grad(y.sum(), [*layer.parameters()]) for y in (found[0].local, wanted[0])]
            assert _farthest(*grads) < 1e-9
    finally:
        dist.destroy_process_group()
