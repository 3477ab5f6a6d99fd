"""Aggregators against their published descriptions, and against torchmil."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from napari_mcm.core.mil.config import AggregatorConfig
from napari_mcm.core.mil.models import (
    ABMIL,
    CLAMSB,
    DSMIL,
    Aggregated,
    MaxPooling,
    MeanPooling,
    make_aggregator,
    seed_dropout,
)
from napari_mcm.core.mil.models.clam import instance_loss
from napari_mcm.core.mil.models.transmil import (
    NystromAttention,
    PositionEncoding,
    pseudo_inverse,
)
from napari_mcm.core.mil.trainer import bag_loss

ALL = ("mean", "max", "abmil", "clam_sb", "clam_mb", "transmil", "dsmil")
CLASSES, DIM = 3, 16


def small(model: str, **more):
    config = AggregatorConfig(model=model, hidden=16, landmarks=4, **more)
    return make_aggregator(config, DIM, CLASSES).eval()


def bags(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, DIM, generator=torch.Generator().manual_seed(seed))


def parameters(model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("model", ALL)
@pytest.mark.parametrize("size", [1, 3, 40])
def test_shapes_and_weights_of_any_bag(model, size):
    aggregator = small(model)
    logits, attention = aggregator(bags(2, size), return_attention=True)
    assert logits.shape == (2, CLASSES) and torch.isfinite(logits).all()
    rows = (2, CLASSES, size) if aggregator.per_class else (2, size)
    assert attention.shape == rows
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(rows[:-1]))
    torch.testing.assert_close(aggregator(bags(2, size)), logits)


@pytest.mark.parametrize("model", ALL)
def test_padding_changes_nothing(model):
    aggregator = small(model)
    bag = bags(2, 9)
    rubbish = torch.full((2, 5, DIM), 1e4)
    padded = torch.cat([bag, rubbish], dim=1)
    mask = torch.arange(14)[None].expand(2, -1) < 9
    logits, attention = aggregator(padded, mask, return_attention=True)
    alone, weights = aggregator(bag, return_attention=True)
    torch.testing.assert_close(logits, alone)
    torch.testing.assert_close(attention[..., :9], weights)
    assert (attention[..., 9:] == 0).all()


@pytest.mark.parametrize("model", [m for m in ALL if m != "transmil"])
def test_the_order_of_patches_does_not_matter(model):
    aggregator = small(model)
    bag = bags(1, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    logits, attention = aggregator(bag, return_attention=True)
    shuffled, weights = aggregator(bag[:, order], return_attention=True)
    torch.testing.assert_close(logits, shuffled)
    torch.testing.assert_close(attention[..., order], weights)


def test_transmil_sees_the_order():
    aggregator = small("transmil")
    bag = bags(1, 12)
    assert not torch.allclose(aggregator(bag), aggregator(bag.flip(1)), atol=1e-4)


@pytest.mark.parametrize("model", ALL)
def test_every_weight_is_learned(model):
    aggregator = small(model, subtyping=True).train()
    seed_dropout(aggregator, 1)
    losses = [
        bag_loss(aggregator, bags(1, 30, seed), None, torch.tensor([label]))
        for seed, label in enumerate([0, 1, 2])
    ]
    torch.stack(losses).sum().backward()
    for name, parameter in aggregator.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
        # Softmax does not feel a constant that is added to all scores.
        if not name.endswith("attend.scores.bias"):
            assert (parameter.grad != 0).any(), name


def test_parameter_counts_are_the_published_ones():
    dim, classes = 1024, 2
    fc = dim * 512 + 512

    def gate(width, rows):
        return 2 * (512 * width + width) + width * rows + rows

    head = 512 * classes + classes
    judges = classes * (512 * 2 + 2)
    made = {
        name: parameters(make_aggregator(AggregatorConfig(model=name), dim, classes))
        for name in ALL
    }
    assert made["mean"] == made["max"] == fc + head
    assert made["abmil"] == fc + gate(384, 1) + head
    assert made["clam_sb"] == fc + gate(256, 1) + head + judges == 790_791
    assert made["clam_mb"] == fc + gate(256, classes) + head + judges
    layer = 512 * 3 * 512 + 512 * 512 + 512 + 8 * 33 + 2 * 512
    ppeg = 512 * (49 + 25 + 9) + 3 * 512
    assert made["transmil"] == fc + 512 + 2 * layer + ppeg + 1024 + head == 2_672_146
    queries = dim * 128 + 128 + 128 * 128 + 128
    assert made["dsmil"] == dim * 2 + 2 + queries + classes * classes * dim + classes


def test_a_bag_of_abmil_by_hand():
    model = ABMIL(2, 2, 2, 1, 0.0).eval()
    with torch.no_grad():
        model.project[0].weight.copy_(torch.eye(2))
        model.project[0].bias.zero_()
        # V looks at the first number, U at the second.
        model.attend.branches.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        model.attend.branches.bias.zero_()
        model.attend.scores.weight.fill_(2.0)
        model.attend.scores.bias.zero_()
        model.classify.weight.copy_(torch.eye(2))
        model.classify.bias.copy_(torch.tensor([0.5, 0.0]))
    bag = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-1.0, 3.0]]])
    kept = [(1.0, 0.0), (0.0, 2.0), (0.0, 3.0)]  # after the ReLU
    scores = [2 * math.tanh(x) / (1 + math.exp(-y)) for x, y in kept]
    weights = np.exp(scores) / np.exp(scores).sum()
    pooled = weights @ np.asarray(kept)
    logits, attention = model(bag, return_attention=True)
    np.testing.assert_allclose(attention[0].detach(), weights, rtol=1e-6)
    np.testing.assert_allclose(logits[0].detach(), pooled + [0.5, 0], rtol=1e-6)


def test_pooling_by_hand():
    bag = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [2.0, -4.0]]])
    for kind, pooled in ((MeanPooling, [2.0, 2 / 3]), (MaxPooling, [3.0, 2.0])):
        model = kind(2, 2, 2, 0.0).eval()
        with torch.no_grad():
            model.project[0].weight.copy_(torch.eye(2))
            model.project[0].bias.zero_()
            model.classify.weight.copy_(torch.eye(2))
            model.classify.bias.zero_()
        logits = model(bag)[0].detach()
        np.testing.assert_allclose(logits, pooled, rtol=1e-6)
    _, shares = model(bag, return_attention=True)
    assert shares.tolist() == [[0.0, 1.0, 0.0]]


def test_the_instance_loss_is_the_smooth_svm():
    scores = torch.tensor([[2.0, 0.5], [0.0, 1.0]])
    # log(sum exp(s_j + 1[j != y])) - s_y, Berrada et al. at temperature 1.
    by_hand = [
        math.log(math.exp(2.0 + 1) + math.exp(0.5)) - 0.5,
        math.log(math.exp(0.0) + math.exp(1.0 + 1)) - 0.0,
    ]
    found = instance_loss(scores, [1, 0], margin=1.0)
    assert float(found) == pytest.approx(np.mean(by_hand))
    plain = instance_loss(scores, [1, 0], margin=0.0)
    assert float(plain) == pytest.approx(
        float(F.cross_entropy(scores, torch.tensor([1, 0])))
    )


@pytest.mark.parametrize(("size", "taken"), [(1, 0), (2, 1), (5, 2), (16, 8), (40, 8)])
def test_clam_takes_no_more_than_half_a_bag_from_each_end(monkeypatch, size, taken):
    from napari_mcm.core.mil.models import clam

    asked = []

    def spy(scores, targets, margin):
        asked.append(list(targets))
        return instance_loss(scores, targets, margin)

    monkeypatch.setattr(clam, "instance_loss", spy)
    model = small("clam_sb")
    state = model.aggregate(bags(1, size))
    loss = model.auxiliary_loss(state, torch.tensor([1]))
    assert asked == ([[1] * taken + [0] * taken] if taken else [])
    assert torch.isfinite(loss)


def test_clam_looks_at_the_ends_of_the_attention_of_the_bags_class():
    model = small("clam_mb", instances=2)
    state = model.aggregate(bags(1, 10))
    row = state.attention[0, 1]
    most, least = row.argsort(descending=True)[:2], row.argsort()[:2]
    scores = model.judges[1](state.instances[0][torch.cat([most, least])])
    expected = instance_loss(scores, [1, 1, 0, 0], 1.0)
    torch.testing.assert_close(model.auxiliary_loss(state, torch.tensor([1])), expected)


def test_clams_total_is_7_to_3():
    model = small("clam_sb")
    bag, label = bags(1, 30), torch.tensor([2])
    state = model.aggregate(bag)
    auxiliary = model.auxiliary_loss(state, label)
    expected = 0.7 * F.cross_entropy(state.logits, label) + 0.3 * auxiliary
    torch.testing.assert_close(bag_loss(model, bag, None, label), expected)


def test_a_bag_of_dsmil_by_hand():
    model = small("dsmil")
    bag = bags(1, 7)
    scores = model.score(bag[0])
    queries = model.query(bag[0])
    logits, attention = model(bag, return_attention=True)
    pooled = []
    for number in range(CLASSES):
        critical = int(scores[:, number].argmax())
        likeness = queries @ queries[critical] / math.sqrt(queries.shape[1])
        weights = likeness.softmax(0)
        torch.testing.assert_close(attention[0, number], weights)
        pooled.append(weights @ bag[0])
    kernel, bias = model.classify.weight, model.classify.bias
    expected = torch.einsum("kcd,cd->k", kernel, torch.stack(pooled)) + bias
    torch.testing.assert_close(logits[0], expected)
    state = model.aggregate(bag)
    label = torch.tensor([1])
    best = F.cross_entropy(scores.max(0).values[None], label)
    torch.testing.assert_close(model.auxiliary_loss(state, label), best)


def test_the_pseudo_inverse_inverts():
    matrix = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(3)).softmax(
        -1
    )
    inverse = pseudo_inverse(matrix.double(), iterations=30)
    one = torch.eye(6, dtype=torch.float64).expand(2, -1, -1)
    torch.testing.assert_close(matrix.double() @ inverse, one, atol=1e-8, rtol=0)


def exact_nystrom(layer, tokens):
    """The whole L x L matrix of the approximation, for few tokens."""
    heads = layer.heads
    query, key, _ = (
        part.unflatten(2, (heads, -1)).transpose(1, 2)
        for part in layer.to_qkv(tokens).chunk(3, dim=-1)
    )
    length, marks = tokens.shape[1], min(layer.landmarks, tokens.shape[1])
    stretch = torch.arange(length) * marks // length
    means = [
        torch.stack([x[:, :, stretch == m].mean(2) for m in range(marks)], dim=2)
        for x in (query, key)
    ]

    def soft(a, b):
        return (a @ b.transpose(-1, -2) / math.sqrt(a.shape[-1])).softmax(-1)

    return (
        soft(query, means[1])
        @ pseudo_inverse(soft(means[0], means[1]))
        @ soft(means[0], key)
    )


@pytest.mark.parametrize("length", [3, 8, 29])
def test_nystrom_never_needs_the_matrix_that_it_stands_for(length):
    torch.manual_seed(0)
    layer = NystromAttention(16, heads=2, landmarks=4, dropout=0.0).eval()
    tokens = torch.randn(1, length, 16)
    whole = exact_nystrom(layer, tokens)
    value = layer.to_qkv(tokens).chunk(3, dim=-1)[2]
    value = value.unflatten(2, (2, -1)).transpose(1, 2)
    mixed = whole @ value + layer.residual(value)
    expected = layer.to_out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(tokens), expected, atol=1e-5, rtol=1e-4)
    first = layer(tokens, first=1)
    torch.testing.assert_close(first, expected[:, :1], atol=1e-5, rtol=1e-4)
    row = whole.mean(1)[0, 0]
    torch.testing.assert_close(layer.of_class_token(tokens), row, atol=1e-5, rtol=1e-4)


def test_with_a_landmark_a_token_nystrom_is_plain_attention():
    torch.manual_seed(0)
    layer = NystromAttention(16, heads=2, landmarks=64, dropout=0.0).eval()
    tokens = 3 * torch.randn(1, 6, 16)
    query, key, _ = (
        part.unflatten(2, (2, -1)).transpose(1, 2)
        for part in layer.to_qkv(tokens).chunk(3, dim=-1)
    )
    plain = (query @ key.transpose(-1, -2) / math.sqrt(8)).softmax(-1)
    whole = exact_nystrom(layer, tokens)
    # Six iterations do not quite invert: that much is the method's.
    assert (whole - plain).abs().mean() < 0.05


def test_ppeg_is_three_convolutions_and_the_identity():
    torch.manual_seed(0)
    layer = PositionEncoding(6)
    tokens = torch.randn(1, 1 + 25, 6)
    square = tokens[:, 1:].transpose(1, 2).reshape(1, 6, 5, 5)
    expected = square + layer.seven(square) + layer.five(square) + layer.three(square)
    found = layer(tokens, 5)
    torch.testing.assert_close(found[:, :1], tokens[:, :1])
    torch.testing.assert_close(found[:, 1:], expected.flatten(2).transpose(1, 2))


def test_what_is_computed_again_gives_the_same_gradients(monkeypatch):
    from napari_mcm.core.mil.models import transmil

    found = []
    for limit in (10**6, 8):
        monkeypatch.setattr(transmil, "MANY_TOKENS", limit)
        model = small("transmil").train()
        seed_dropout(model, 1)
        bag_loss(model, bags(1, 30), None, torch.tensor([1])).backward()
        found.append([p.grad for p in model.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_transmil_takes_20_000_patches_with_its_attention():
    model = make_aggregator(
        AggregatorConfig(model="transmil", hidden=32, landmarks=16), 8, 2
    ).eval()
    with torch.inference_mode():
        logits, attention = model(torch.randn(1, 20_000, 8), return_attention=True)
    assert torch.isfinite(logits).all() and attention.shape == (1, 20_000)


def test_dropout_depends_on_its_key_only():
    model = small("abmil").train()
    bag = bags(1, 50)
    seed_dropout(model, 1, 2)
    one = model(bag)
    torch.manual_seed(99)
    seed_dropout(model, 1, 2)
    torch.testing.assert_close(model(bag), one, atol=0, rtol=0)
    seed_dropout(model, 1, 3)
    assert not torch.equal(model(bag), one)


def test_dropout_keeps_the_mean():
    from napari_mcm.core.mil.models.base import Dropout

    layer = Dropout(0.25)
    layer.seed((1,))
    dropped = layer(torch.ones(400, 400))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(torch.ones(3)), torch.ones(3))


# torchmil (Apache-2.0) has one logit where we have two: the difference of ours is it.


def two_rows(single: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(single), single])


def test_abmil_agrees_with_torchmil():
    models = pytest.importorskip("torchmil.models")
    torch.manual_seed(0)
    theirs = models.ABMIL(in_shape=(DIM,), att_dim=5, gated=True).eval()
    ours = ABMIL(DIM, 2, DIM, 5, 0.0).eval()
    pool = theirs.pool
    with torch.no_grad():
        ours.project[0].weight.copy_(torch.eye(DIM))
        ours.project[0].bias.zero_()
        ours.attend.branches.weight.copy_(
            torch.cat([pool.fc1.module.weight, pool.fc_gated.module.weight])
        )
        ours.attend.branches.bias.copy_(
            torch.cat([pool.fc1.module.bias, pool.fc_gated.module.bias])
        )
        ours.attend.scores.weight.copy_(pool.fc2.weight)
        ours.attend.scores.bias.zero_()
        ours.classify.weight.copy_(two_rows(theirs.classifier.module.weight))
        ours.classify.bias.copy_(two_rows(theirs.classifier.module.bias))
    bag = bags(2, 11).abs()  # the ReLU that torchmil leaves to its extractor
    mask = torch.arange(11)[None] < torch.tensor([[11], [6]])
    logits, attention = ours(bag, mask, return_attention=True)
    expected, scores = theirs(bag, mask.float(), return_att=True)
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], expected)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(1)
    torch.testing.assert_close(attention, weights)


def test_dsmil_agrees_with_torchmil():
    models = pytest.importorskip("torchmil.models")
    torch.manual_seed(0)
    theirs = models.DSMIL(in_shape=(DIM,), att_dim=5, nonlinear_q=True).eval()
    ours = DSMIL(DIM, 2, 5, 0.0).eval()
    with torch.no_grad():
        ours.score.weight.copy_(two_rows(theirs.inst_classifier.weight))
        ours.score.bias.copy_(two_rows(theirs.inst_classifier.bias))
        ours.query.load_state_dict(theirs.q_nn.state_dict())
        ours.classify.weight.zero_()
        ours.classify.weight[1, 1].copy_(theirs.bag_classifier.weight[0])
        ours.classify.bias.copy_(two_rows(theirs.bag_classifier.bias))
    bag = bags(2, 11)
    logits, attention = ours(bag, return_attention=True)
    expected, weights = theirs(bag, return_att=True)
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], expected)
    torch.testing.assert_close(attention[:, 1], weights.reshape(2, 11))


def test_clam_picks_the_patches_that_torchmil_picks():
    models = pytest.importorskip("torchmil.models")
    torch.manual_seed(0)
    theirs = models.CLAM_SB(in_shape=(DIM,), att_dim=5, k_sample=4, gated=True)
    ours = CLAMSB(DIM, 2, DIM, 5, 0.0, instances=4, subtyping=True)
    for mine, other in zip(ours.judges, theirs.inst_classifiers, strict=True):
        mine.load_state_dict(getattr(other, "module", other).state_dict())

    # Its own SVM loss (1.0.2) mixes patches up: targets of two dimensions broadcast.
    def loss(scores, targets):
        return instance_loss(scores, targets.long().ravel().tolist(), 1.0)

    theirs.inst_loss_fn = torch.nn.Module()
    theirs.inst_loss_fn.forward = loss
    vectors = bags(1, 20)
    attention = torch.rand(1, 20, generator=torch.Generator().manual_seed(5))
    state = Aggregated(torch.zeros(1, 2), attention, vectors)
    expected = theirs.compute_inst_loss(attention, vectors, torch.tensor([1]))
    # They add the two classes up, CLAM takes the mean over classes.
    found = ours.auxiliary_loss(state, torch.tensor([1]))
    torch.testing.assert_close(2 * found, expected)


def test_nystrom_and_ppeg_agree_with_torchmil():
    attention = pytest.importorskip("torchmil.nn.attention.nystrom_attention")
    from torchmil.models.transmil import PPEG

    torch.manual_seed(0)
    theirs = attention.NystromAttention(
        16, att_dim=16, n_heads=2, n_landmarks=4, pinv_iterations=30
    )
    ours = NystromAttention(16, heads=2, landmarks=4, dropout=0.0).eval()
    with torch.no_grad():
        ours.to_qkv.weight.copy_(theirs.qkv_nn.weight)
        ours.to_out.weight.copy_(torch.eye(16))
        ours.to_out.bias.zero_()
        ours.residual.weight.zero_()  # torchmil leaves the convolution out
    tokens = torch.randn(1, 12, 16)  # a multiple: they pad with zeros elsewhere
    import napari_mcm.core.mil.models.transmil as module

    expected, whole = theirs(tokens, return_att=True)
    before = module.pseudo_inverse.__defaults__
    module.pseudo_inverse.__defaults__ = (30,)
    try:
        found, row = ours(tokens), ours.of_class_token(tokens)
    finally:
        module.pseudo_inverse.__defaults__ = before
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(row, whole.mean(1)[0, 0], atol=1e-4, rtol=1e-3)
    ppeg, position = PPEG(6), PositionEncoding(6)
    parts = (position.seven, position.five, position.three)
    for mine, other in zip(parts, (ppeg.proj, ppeg.proj1, ppeg.proj2), strict=True):
        mine.load_state_dict(getattr(other, "module", other).state_dict())
    tokens = torch.randn(1, 1 + 16, 6)
    torch.testing.assert_close(position(tokens, 4), ppeg(tokens, 4, 4))
