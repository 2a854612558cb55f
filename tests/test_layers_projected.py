"""A stack of projected layers: its gradients and sequences of several lengths, against torch."""

import pytest

import recsolve as rs

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_of_projected_layers(bidirectional):
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 5, 2, bidirectional=bidirectional, proj_size=4).double()
    count = 2 * (1 + bidirectional)
    leaves = [torch.randn(*s, dtype=torch.float64) for s in ((9, 2, 3), (count, 2, 4), (count, 2, 5))]
    for leaf in leaves:
        leaf.requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(leaves[0], [9, 4])
    out, final = module(packed, tuple(leaves[1:]))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(out)
    cotangents = [torch.randn_like(x) for x in (y, *final)]
    sum((x * c).sum() for x, c in zip((y, *final), cotangents, strict=True)).backward()
    x, h, c = (leaf.detach() for leaf in leaves)
    sol = rs.Layers.from_torch(module).solve(x, (h, c), lengths=[9, 4])
    assert sol.trusted
    for ours, theirs in zip((sol.output, *sol.final), (y, *final), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-12)
    g = sol.adjoint(output=cotangents[0], final=tuple(cotangents[1:]))
    for ours, leaf in zip((g.inputs, *g.initial), leaves, strict=True):
        torch.testing.assert_close(ours, leaf.grad, rtol=0, atol=1e-11)
    with pytest.raises(AttributeError, match=r"weights have torch's names only for the cells .* lstm \(ReadCell\)"):
        g.weights  # noqa: B018
