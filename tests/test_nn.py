"""recsolve.nn's GRU, LSTM and RNN in the place of torch's: results, gradients, checkpoints, and how sequences lie."""

import copy
import dataclasses
import gc
import pickle
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, strategies

import recsolve as rs

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # what is computed here is small
rnn = torch.nn.utils.rnn

KINDS = ("GRU", "LSTM", "RNN", "RNN relu", "LSTM proj")
T, LENGTHS = 7, [4, 7, 1, 5]
B, D, N = len(LENGTHS), 3, 5


def pair(kind, dtype=torch.float64, **options):
    """Return torch's module and ours with the same weights."""
    name, _, more = kind.partition(" ")
    options |= {"relu": {"nonlinearity": "relu"}, "proj": {"proj_size": 2}}.get(more, {})
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(D, N, dtype=dtype, **options)
    ours = getattr(rs.nn, name)(D, N, dtype=dtype, **options)
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    return theirs, ours


def parts(x):
    return tuple(x) if isinstance(x, (tuple, list)) and not isinstance(x, rnn.PackedSequence) else (x,)


def start(module, count=B):
    """Return initial states, in the shape that torch wants."""
    rng = torch.Generator().manual_seed(1)
    shown = module.proj_size or N
    widths = (shown, N) if module.mode == "LSTM" else (shown,)
    axes = (module.num_layers * (1 + module.bidirectional), *(() if count is None else (count,)))
    return [torch.randn(*axes, width, dtype=torch.float64, generator=rng).requires_grad_() for width in widths]


def as_hx(hx):
    return None if not hx else tuple(hx) if len(hx) > 1 else hx[0]


def derivatives(results, leaves, module):
    """Return gradients of a random functional of results, with respect to leaves and all weights."""
    rng = torch.Generator().manual_seed(2)
    loss = sum((y * torch.randn(y.shape, dtype=y.dtype, generator=rng)).sum() for y in results)
    return torch.autograd.grad(loss, [*leaves, *module.parameters()])


def assert_same(ours, theirs, tolerance=1e-10):
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)


OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "batch_first": True, "bias": False},
    {"num_layers": 3, "dropout": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["padded", "alone", "packed"])
def test_results_and_gradients_are_those_of_torch(kind, options, form):
    if form == "packed":
        options = {name: value for name, value in options.items() if name != "dropout"}  # drawn for other shapes
    modules, found = pair(kind, **options), []
    x = torch.randn(*((B, T) if options.get("batch_first") else (T, B)), D, dtype=torch.float64).requires_grad_()
    hx = start(modules[0], None if form == "alone" else B)
    leaf = x[0].detach().requires_grad_() if form == "alone" else x
    for module in modules:
        torch.manual_seed(3)  # of dropout
        if form == "packed":
            entered = rnn.pack_padded_sequence(leaf, LENGTHS, module.batch_first, enforce_sorted=False)
        else:
            entered = leaf
        y, final = module(entered, as_hx(hx))
        if form == "packed":
            assert isinstance(y, rnn.PackedSequence)
            assert torch.equal(y.batch_sizes, entered.batch_sizes)
            y = rnn.pad_packed_sequence(y)[0]
        results = [y, *parts(final)]
        found.append([*results, *derivatives(results, [leaf, *hx], module)])
    assert_same(*reversed(found))
    with torch.no_grad():
        assert_same(*[parts(module.eval()(entered)[1]) for module in modules])  # from zeros, and nothing is dropped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_documents_and_resets_are_sequences_one_by_one(kind, bidirectional):
    """A length of zero among them, states from outside, and NaN where no step is."""
    theirs, ours = pair(kind, num_layers=2, bidirectional=bidirectional)
    lengths = [4, 7, 0, 5]
    xs = [torch.randn(length, D, dtype=torch.float64) for length in lengths]
    hx = start(ours)
    for states in (hx, None):
        with torch.no_grad():
            alone = [
                theirs(x, as_hx(None if states is None else [h[:, i] for h in states])) if len(x) else None
                for i, x in enumerate(xs)
            ]
            padded = torch.full((T, B, D), torch.nan, dtype=torch.float64)
            for i, x in enumerate(xs):
                padded[: len(x), i] = x
            y, final = ours(padded, as_hx(states), lengths=torch.tensor(lengths))
            flat, ends = ours(torch.cat(xs), as_hx(states), cu_seqlens=np.cumsum([0, *lengths]))
        assert_same([flat], [torch.cat([r[0] for r in alone if r is not None])])
        for i, result in enumerate(alone):
            assert not y[lengths[i] :, i].any()
            if result is None:
                wanted = [torch.zeros_like(h[:, i]) for h in hx] if states is None else [h[:, i] for h in hx]
            else:
                assert_same([y[: lengths[i], i]], [result[0]])
                wanted = parts(result[1])
            assert_same([f[:, i] for f in parts(final)], wanted)
            assert_same([f[:, i] for f in parts(ends)], wanted)
    reset = torch.zeros(16, dtype=torch.bool)
    reset[[4, 11]] = True
    first = [h[:, :1] for h in hx]
    with torch.no_grad():
        y, final = ours(torch.cat(xs)[:, None], as_hx(first), reset=reset)
        wanted = [theirs(x[:, None], as_hx(first)) for x in xs if len(x)]
    assert_same([y], [torch.cat([r[0] for r in wanted])])
    for ours_, theirs_, last in zip(parts(final), parts(wanted[0][1]), parts(wanted[-1][1]), strict=True):
        assert_same([ours_[:: 1 + bidirectional]], [last[:: 1 + bidirectional]])
        assert_same([ours_[1 :: 1 + bidirectional]], [theirs_[1 :: 1 + bidirectional]]) if bidirectional else None


def test_gradients_of_packed_and_padded_sequences_are_the_same():
    _, ours = pair("LSTM", num_layers=2, bidirectional=True)
    lengths, hx = [4, 7, 0, 5], start(ours)
    x = torch.randn(T, B, D, dtype=torch.float64).requires_grad_()
    y, final = ours(x, as_hx(hx), lengths=lengths)
    mask = torch.arange(T)[:, None] < torch.tensor(lengths)
    flat = x.transpose(0, 1)[mask.T]
    z, ends = ours(flat, as_hx(hx), cu_seqlens=torch.tensor([0, 4, 11, 11, 16]))
    assert_same([z, *ends], [y.transpose(0, 1)[mask.T], *final])
    found = derivatives([z, *ends], [x, *hx], ours)
    assert_same(found, derivatives([y.transpose(0, 1)[mask.T], *final], [x, *hx], ours))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "count"), [(0, 2), (1, 1), (3, 0), (0, 0)])
def test_few_steps_and_sequences(kind, steps, count):
    _, ours = pair(kind, num_layers=2, bidirectional=True, batch_first=True)
    hx, x = start(ours, count), torch.randn(count, steps, D, dtype=torch.float64).requires_grad_()
    y, final = ours(x, as_hx(hx))
    assert y.shape == (count, steps, 2 * (ours.proj_size or N))
    if steps == 0:
        assert_same(parts(final), hx)
    (y.sum() + sum(f.sum() for f in parts(final))).backward()
    assert x.grad.shape == x.shape
    assert ours(torch.zeros(0, D, dtype=torch.float64), cu_seqlens=[0] * (count + 1))[0].shape == (0, y.shape[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_first_derivatives_are_those_of_differences(kind):
    _, ours = pair(kind, num_layers=2, bidirectional=True)
    x = torch.randn(3, 2, D, dtype=torch.float64).requires_grad_()
    hx = start(ours, 2)
    names = list(dict(ours.named_parameters()))
    values = [p.detach().clone().requires_grad_() for p in ours.parameters()]

    def run(x, *rest):
        weights = dict(zip(names, rest[len(hx) :], strict=True))
        y, final = torch.func.functional_call(ours, weights, (x, as_hx(rest[: len(hx)])))
        return (y, *parts(final))

    assert torch.autograd.gradcheck(run, (x, *hx, *values), fast_mode=True)


def test_second_derivatives_pass_through_layers():
    _, ours = pair("LSTM proj", num_layers=2, bidirectional=True)
    x = torch.randn(3, 2, D, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: ours(x, lengths=[3, 2])[0], (x,), fast_mode=True)


def test_gradients_of_each_sample_and_ensembles_of_weights():
    _, ours = pair("GRU", bidirectional=True)
    weights, x = dict(ours.named_parameters()), torch.randn(B, T, D, dtype=torch.float64)

    def loss(weights, x):
        return torch.func.functional_call(ours, weights, (x,))[0].sin().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for i in range(B):
        alone = torch.autograd.grad(loss(weights, x[i]), list(weights.values()))
        assert_same([g[i] for g in each.values()], alone, 1e-12)
    members = [pair("GRU", bidirectional=True)[1] for _ in range(3)]
    for number, member in enumerate(members):
        with torch.no_grad():
            member.weight_hh_l0.mul_(number)
    stacked, _ = torch.func.stack_module_state(members)
    found = torch.func.vmap(lambda w: torch.func.functional_call(ours, w, (x[0],))[0])(stacked)
    assert_same(found, [member(x[0])[0] for member in members])


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_go_both_ways_and_copies_are_equal(kind, tmp_path):
    theirs, ours = pair(kind, num_layers=2, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(T, B, D, dtype=torch.float64)
    torch.save(ours.state_dict(), tmp_path / "weights.pt")
    with torch.no_grad():
        wanted = theirs(x)[0]
        copies = [ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
        fresh = type(ours)(D, N, num_layers=2, bidirectional=True, dtype=torch.float64, **extra(kind))
        fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        for module in [*copies, fresh]:
            assert_same([module(x)[0]], [wanted])
            assert module.counters.solves == 4
        assert_same([ours.float()(x.float())[0]], [theirs.float()(x.float())[0]], 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_read_as_the_modules_of_torch(kind):
    theirs, ours = pair(kind, num_layers=2, bidirectional=True)
    x = torch.randn(T, B, D, dtype=torch.float64)
    with torch.no_grad():
        assert_same([rs.run(ours, x)[0], rs.Layers.from_torch(ours).run(x)[0]], [theirs(x)[0]] * 2)


def extra(kind):
    return {"RNN relu": {"nonlinearity": "relu"}, "LSTM proj": {"proj_size": 2}}.get(kind, {})


def test_weights_that_are_computed_are_seen_and_trained():
    theirs, ours = pair("GRU")
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    x, found = torch.randn(T, B, D, dtype=torch.float64), []
    for module in (ours, theirs):
        module.zero_grad()
        y = module(x)[0]
        y.square().sum().backward()
        found.append([y, *(p.grad for p in module.parameters())])
    assert_same(*found)
    with pytest.raises(ValueError, match="weight_hh_l0 is reparametrized"):
        rs.nn.clip_recurrent_(ours, 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_modules_and_autocast_have_the_dtypes_of_torch(kind, dtype):
    """States are float32 within; under autocast the projections alone are rounded."""
    theirs, ours = pair(kind, torch.float32, num_layers=2)
    x = torch.randn(T, B, D)
    exact = theirs(x)[0]
    with torch.autocast("cpu", dtype=dtype):
        y, final = ours(x)
        (ours(x.to(dtype))[0]).float().sum().backward()
        if dtype is torch.bfloat16:
            assert (y.dtype, parts(final)[0].dtype) == (theirs(x)[0].dtype, parts(theirs(x)[1])[0].dtype)
    assert torch.allclose(y.float(), exact, atol=0.02)
    half = ours.to(dtype)
    y, final = half(x.to(dtype))
    y.float().sum().backward()
    assert {y.dtype, *(f.dtype for f in parts(final)), *(p.grad.dtype for p in half.parameters())} == {dtype}
    assert torch.allclose(y.float(), exact, atol=0.02)


def test_two_steps_of_training_lower_the_loss():
    torch.manual_seed(0)
    model = rs.nn.LSTM(D, N, num_layers=2, batch_first=True, dropout=0.1)
    readout, optimizer = torch.nn.Linear(N, 1), None
    x = torch.randn(B, 30, D)
    optimizer = torch.optim.Adam([*model.parameters(), *readout.parameters()], lr=0.05)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (readout(model(x)[0])[..., 0] - x.sum(-1)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2] > losses[4]
    assert model.counters.solves == 10
    assert model.counters.completed == model.counters.unmet == 0


def test_bad_input_is_named():
    _, ours = pair("LSTM", num_layers=2, batch_first=True)
    x, hx = torch.zeros(B, T, D, dtype=torch.float64), start(ours)
    packed = rnn.pack_padded_sequence(x, LENGTHS, True, enforce_sorted=False)
    bad = [
        (ValueError, r"input has shape \(7,\); wanted \(T, D\) or \(B, T, D\)", (x[0, :, 0],), {}),
        (ValueError, "input has 2 features; wanted input_size = 3", (x[..., :2],), {}),
        (TypeError, "input is list; wanted a tensor or a PackedSequence", (x.tolist(),), {}),
        (TypeError, "input has dtype torch.float32; wanted torch.float64, as the weights", (x.float(),), {}),
        (TypeError, "input has dtype torch.bfloat16; wanted torch.float64", (x.bfloat16(),), {}),
        (ValueError, "input is on meta and the weights on cpu; wanted one device", (x.to("meta"),), {}),
        (ValueError, "hx has 1 parts; wanted 2", (x, hx[0]), {}),
        (ValueError, r"hx\[1\] has shape \(2, 3, 5\); wanted .* = \(2, 4, 5\)", (x, (hx[0], hx[1][:, :3])), {}),
        (ValueError, r"hx\[0\] has shape \(2, 4, 5\); wanted .* = \(2, 5\)", (x[0], hx), {}),
        (TypeError, r"hx\[0\] has dtype torch.float32", (x, (hx[0].float(), hx[1])), {}),
        (ValueError, r"lengths\[1\] is 8; wanted 0 to T = 7", (x,), {"lengths": [1, 8, 1, 1]}),
        (ValueError, r"lengths has shape \(3,\); wanted one per sequence, \(4,\)", (x,), {"lengths": [1, 2, 3]}),
        (ValueError, r"reset has shape \(6,\); wanted", (x,), {"reset": np.zeros(6, bool)}),
        (ValueError, "lengths is given, but input is a PackedSequence", (packed,), {"lengths": LENGTHS}),
        (ValueError, "cu_seqlens alone", (x[0],), {"cu_seqlens": [0, 7], "lengths": 7}),
        (ValueError, r"cu_seqlens is \[0, 3\]; wanted .* number of steps 7", (x[0],), {"cu_seqlens": [0, 3]}),
        (ValueError, r"input has shape \(4, 7, 3\); wanted \(total, D\)", (x,), {"cu_seqlens": [0, 7]}),
        (TypeError, "cu_seqlens has dtype float64", (x[0],), {"cu_seqlens": [0.0, 7.0]}),
    ]
    for error, message, arguments, options in bad:
        with pytest.raises(error, match=message):
            ours(*arguments, **options)
    with pytest.raises(RuntimeError, match="size mismatch for weight_ih_l0"):
        ours.load_state_dict(rs.nn.GRU(D, N, num_layers=2).state_dict())
    for options, message in (({"method": "newtn"}, "method is 'newtn'"), ({"on_failure": "x"}, "on_failure is 'x'")):
        with pytest.raises(ValueError, match=message):
            rs.nn.GRU(D, N, **options)


@pytest.fixture
def compiled():
    """Compile whole graphs, forwards and backwards, without generated code."""
    torch._dynamo.reset()
    yield lambda module: torch.compile(module, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


@pytest.mark.parametrize("way", ["padded", "lengths", "cu_seqlens", "reset"])
def test_compiled_models_hold_a_layer_without_a_break(way, compiled):
    _, ours = pair("LSTM proj" if way == "padded" else "GRU", num_layers=2, bidirectional=way != "padded")
    x, reset = torch.randn(T, B, D, dtype=torch.float64).requires_grad_(), torch.zeros(T, dtype=torch.bool)
    reset[3] = True
    entered = {
        "padded": ((x, as_hx(start(ours))), {}),
        "lengths": ((x,), {"lengths": torch.tensor(LENGTHS, dtype=torch.int32)}),
        "cu_seqlens": ((x[:, 0],), {"cu_seqlens": torch.tensor([0, 3, 3, T], dtype=torch.int32)}),
        "reset": ((x,), {"reset": reset}),
    }
    arguments, options = entered[way]
    found = []
    for run in (ours, compiled(ours)):
        y, final = run(*arguments, **options)
        results = [y, *parts(final)]
        found.append([*results, *derivatives(results, [x], ours)])
    assert_same(*found)
    assert ours.counters.solves == 2 * 2 * (1 + ours.bidirectional)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_results_and_gradients_are_those_on_the_cpu(kind):
    _, ours = pair(kind, num_layers=2, bidirectional=True)
    x, hx = torch.randn(T, B, D, dtype=torch.float64).requires_grad_(), start(ours)
    y, final = ours(x, as_hx(hx), lengths=LENGTHS)
    wanted = [y, *parts(final), *derivatives([y, *parts(final)], [x, *hx], ours)]
    there, on_gpu = [h.detach().cuda().requires_grad_() for h in hx], x.detach().cuda().requires_grad_()
    with pytest.raises(ValueError, match="input is on cpu and the weights on cuda:0"):
        copy.deepcopy(ours).cuda()(x)
    ours.cuda()
    y, final = ours(on_gpu, as_hx(there), lengths=torch.tensor(LENGTHS).cuda())
    results = [y.cpu(), *(f.cpu() for f in parts(final))]
    found = [*results, *(g.cpu() for g in derivatives(results, [on_gpu, *there], ours))]
    assert_same(found, wanted, 1e-9)


@given(
    kind=strategies.sampled_from(KINDS),
    layers=strategies.integers(1, 2),
    flags=strategies.tuples(*[strategies.booleans()] * 4),
    lengths=strategies.lists(strategies.integers(1, 9), min_size=1, max_size=3),
)
def test_whatever_options_meet_results_and_gradients_are_those_of_torch(kind, layers, flags, lengths):
    bias, first, both, started = flags
    modules = pair(kind, num_layers=layers, bias=bias, batch_first=first, bidirectional=both)
    shape = (len(lengths), max(lengths)) if first else (max(lengths), len(lengths))
    x = torch.randn(*shape, D, dtype=torch.float64).requires_grad_()
    hx = start(modules[0], len(lengths)) if started else []
    packed = rnn.pack_padded_sequence(x, lengths, first, enforce_sorted=False)
    y, final = modules[0](packed, as_hx(hx))
    wanted = [rnn.pad_packed_sequence(y, first)[0], *parts(final)]
    y, final = modules[1](x, as_hx(hx), lengths=lengths)
    results = [y, *parts(final)]
    assert_same(results, wanted)
    assert_same(derivatives(results, [x, *hx], modules[1]), derivatives(wanted, [x, *hx], modules[0]))


WAYS = [{}, {"lengths": [7, 0, 5, 2]}, {"reset": [0, 1, 1, 0, 0, 1, 0]}, {"cu_seqlens": [0, 4, 4, 7]}]
SOME = np.eye(T, B, -2, dtype=bool)  # a reset of one sequence after the other


@pytest.mark.parametrize("way", [*WAYS, {"reset": SOME}, {"reset": SOME, "lengths": [7, 4, 0, 6]}])
@pytest.mark.parametrize("kind", ["GRU", "LSTM proj"])
def test_windows_keep_little_and_change_nothing(kind, way):
    """Nor is what the backward solves again counted."""
    whole, cut = (pair(kind, num_layers=2, bidirectional=True, batch_first=True)[1] for _ in range(2))
    cut.solving = dataclasses.replace(cut.solving, every=3)
    alone = "cu_seqlens" in way
    x = torch.randn(*((T,) if alone else (B, T)), D, dtype=torch.float64).requires_grad_()
    hx, found, kept = [] if alone else start(whole), [], []
    for module in (whole, cut):
        sizes = []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y, final = module(x, as_hx(hx), **way)
        results = [y, *parts(final)]
        found.append([*results, *derivatives(results, [x, *hx], module)])
        kept.append(sum(sizes))
    assert_same(*found)
    assert way.get("reset") is SOME or cut.counters.solves == 3 * whole.counters.solves
    assert kept[1] < kept[0]
    with pytest.raises(ValueError, match="every is 0"):
        rs.nn.GRU(D, N, every=0)
    with pytest.raises(ValueError, match="cotangent_clamp is 0"):
        rs.nn.GRU(D, N, cotangent_clamp=0)


def test_the_graph_of_a_layer_in_windows_holds_no_recurrence(monkeypatch):
    """It would hold drives and states, which are to be computed again."""
    _, ours = pair("LSTM")
    ours.solving, seen = dataclasses.replace(ours.solving, every=3), []
    monkeypatch.setattr(rs.nn.Counters, "count", lambda self, solution, **_: seen.append(ref(solution.recurrence)))
    y, _ = ours(torch.randn(T, B, D, dtype=torch.float64))
    gc.collect()
    assert [recurrence() for recurrence in seen] == [None] * 3
    y.sum().backward()


def test_windows_are_not_solved_again_of_other_weights_or_inputs():
    _, ours = pair("GRU")
    ours.solving = dataclasses.replace(ours.solving, every=3)
    for changed in ("weight_hh_l0", "weight_ih_l0", "x"):
        x = torch.randn(T, B, D, dtype=torch.float64)
        y, _ = ours(x)
        with torch.no_grad():
            (x if changed == "x" else getattr(ours, changed)).mul_(0.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_torch_compile_follows_windows_without_a_break():
    whole, cut = (pair("GRU", num_layers=2)[1] for _ in range(2))
    cut.solving = dataclasses.replace(cut.solving, every=3)
    compiled = torch.compile(cut, fullgraph=True, backend="aot_eager")
    x, found = torch.randn(T, B, D, dtype=torch.float64).requires_grad_(), []
    for module, call in ((whole, whole), (cut, compiled)):
        y, final = call(x)
        found.append([y, final, *derivatives([y, final], [x], module)])
    assert_same(*found)


def test_windows_are_solved_again_as_often_as_is_asked():
    theirs, ours = pair("GRU")
    ours.solving = dataclasses.replace(ours.solving, every=3)
    x, found = torch.randn(T, B, D, dtype=torch.float64), []
    for module in (theirs, ours):
        given = x.clone().requires_grad_()
        loss = module(given)[0].square().sum()
        (g,) = torch.autograd.grad(loss, given, create_graph=True)
        g.square().sum().backward(retain_graph=True)
        loss.backward()
        found.append([given.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*found)
    assert ours.counters.solves == 3


def test_states_that_grow_without_end_are_those_of_torch_and_told():
    theirs, ours = pair("RNN relu", torch.float32)
    x, found = torch.ones(60, B, D).requires_grad_(), []
    with torch.no_grad():
        for module in (theirs, ours):
            module.weight_hh_l0.fill_(1.0)
            module.weight_hh_l0.mul_(10.0)
    with pytest.warns(rs.nn.ConvergenceWarning, match="nonfinite"):
        found = [module(x)[0] for module in (theirs, ours)]
    assert torch.equal(found[0].isfinite(), found[1].isfinite())
    assert not found[0].isfinite().all()
    found[1].sum().backward()
    assert ours.weight_hh_l0.grad.isnan().any()
    assert ours.counters.unmet == 1
