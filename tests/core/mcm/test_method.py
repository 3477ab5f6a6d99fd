"""What the article's method must hold, and would not if it were built wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm.config import ContextConfig, OptimiserConfig, TargetConfig
from napari_mcm.core.mcm.model import ContextModel, Target, sincos_positions
from napari_mcm.core.mcm.student import (
    parameter_groups,
    prepare_student,
    rate_factor,
)
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.runtime.jobs import run
from tests.core.mcm.conftest import make_window


def step(learner, windows, factor=1.0, learning=True):
    return run(learner.step(windows, factor, learning, seed=0))


def test_masked_pixels_do_not_leak_into_predictions(student, teacher, config):
    learner = McmTrainer(student, teacher, config)
    learner.head.eval()
    window = make_window(0, [1, 5, 7])
    _, before = learner.predict([window])
    window.masked_pixels[:] = 255 - window.masked_pixels
    _, after = learner.predict([window])
    assert_close(after, before, rtol=0, atol=0)
    window.visible_pixels[0] = 255 - window.visible_pixels[0]
    _, changed = learner.predict([window])
    assert (changed - before).abs().max() > 1e-4


def test_predictions_depend_on_where_patches_lie():
    torch.manual_seed(0)
    head = ContextModel(16, 8, ContextConfig(s=3, depth=2, heads=4)).eval()
    masked = torch.zeros(1, 9, dtype=torch.bool)
    masked[0, 0] = True
    features = torch.randn(8, 16)
    before = head(features, ~masked, masked)
    assert (head(features.flip(0), ~masked, masked) - before).abs().max() > 0.01
    # It is the positions that do it: without them a window is a bag.
    head.positions = torch.zeros_like(head.positions)
    bag = head(features, ~masked, masked)
    assert_close(head(features.flip(0), ~masked, masked), bag, rtol=1e-4, atol=1e-5)


def test_masked_places_get_different_predictions(student, teacher, config):
    # All masked places hold the same token: only positions tell them apart.
    learner = McmTrainer(student, teacher, config)
    learner.head.eval()
    _, predictions = learner.predict([make_window(0, [0, 4, 8])])
    assert predictions.std(dim=0).mean() > 1e-3


def test_places_without_tissue_are_attended_to_by_none():
    config = ContextConfig(s=3, depth=2, heads=4)
    torch.manual_seed(0)
    head = ContextModel(16, 8, config).eval()
    features = torch.randn(5, 16)
    visible = torch.tensor([[1, 1, 0, 0, 1, 0, 1, 1, 0]]).bool()
    masked = torch.tensor([[0, 0, 0, 1, 0, 0, 0, 0, 1]]).bool()
    there = (visible | masked)[0]
    whole = head(features, visible, masked)
    # The same without those places at all.
    head.positions = head.positions[there]
    cut = head(features, visible[:, there], masked[:, there])
    assert_close(whole, cut, rtol=1e-5, atol=1e-5)


def test_positions_are_told_apart_in_both_directions():
    positions = sincos_positions(4, 64)
    assert positions.shape == (16, 64)
    distances = torch.cdist(positions, positions) + torch.eye(16) * 9
    assert distances.min() > 0.5
    # Equal steps along rows and along columns are equally far.
    assert_close(distances[0, 1], distances[0, 4])


def test_literal_l1_is_the_article_s_equation():
    target = Target(TargetConfig(target_norm="none", loss="l1"))
    y = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert_close(target.scale(y), y)
    guess = torch.tensor([[0.0, 2.0], [1.0, 6.0]])
    assert target.loss(guess, y) / 2 == pytest.approx((1 + 0 + 2 + 1) / 4)


def test_layer_norm_gives_each_target_zero_mean_and_unit_variance():
    scaled = Target(TargetConfig()).scale(torch.randn(7, 50) * 9 + 4)
    assert_close(scaled.mean(1), torch.zeros(7), atol=1e-5, rtol=0)
    assert_close(scaled.var(1, unbiased=False), torch.ones(7), atol=1e-3, rtol=0)


def test_standardised_targets_use_the_statistics_of_patches(student, teacher, config):
    config = config.model_copy(
        update={"target": TargetConfig(target_norm="standardise")}
    )
    learner = McmTrainer(student, teacher, config)
    windows = [make_window(n, [1, 5, 7]) for n in range(5)]
    run(learner.measure_targets(windows))
    features = [learner.teacher.encode(w.masked_pixels) for w in windows]
    scaled = learner.target.scale(torch.from_numpy(np.concatenate(features)))
    assert_close(scaled.mean(0), torch.zeros(teacher.dim), atol=1e-4, rtol=0)
    assert scaled.std(0).median() == pytest.approx(1, abs=1e-3)


def test_learning_begins_at_the_best_constant(student, teacher, config):
    target = config.target.model_copy(update={"loss": "l1"})
    config = config.model_copy(update={"target": target})
    learner = McmTrainer(student, teacher, config)
    windows = [make_window(n, [1, 5, 7]) for n in range(5)]
    run(learner.measure_targets(windows))
    scaled = learner.target.scale(
        torch.from_numpy(
            np.concatenate([teacher.encode(w.masked_pixels) for w in windows])
        )
    )
    first = step(learner, windows, factor=0.0).loss
    constant = (scaled - scaled.median(dim=0).values).abs().mean()
    assert first == pytest.approx(float(constant), rel=1e-4)
    assert first < (scaled - scaled.mean(dim=0)).abs().mean()


def test_cosine_arm_is_zero_for_a_perfect_guess_only():
    target = Target(TargetConfig(loss="cosine_smooth_l1"))
    y = torch.randn(4, 9)
    assert target.loss(y, y) == pytest.approx(0, abs=1e-5)
    assert target.loss(-y, y) / 4 > 1.8


def test_the_teacher_does_not_learn(student, teacher, config):
    before = {k: v.clone() for k, v in teacher.module.state_dict().items()}
    learner = McmTrainer(student, teacher, config)
    for _ in range(3):
        step(learner, [make_window(0, [1, 5, 7])])
    for name, tensor in teacher.module.state_dict().items():
        assert_close(tensor, before[name], rtol=0, atol=0)
    assert not any(p.grad is not None for p in teacher.module.parameters())


def test_a_batch_can_be_learned_by_heart(student, teacher, config):
    learner = McmTrainer(student, teacher, config)
    windows = [make_window(n, [n, 8 - n]) for n in range(3)]
    losses = [step(learner, windows).loss for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_student_and_head_both_learn(student, teacher, config):
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    learner = McmTrainer(student, teacher, config)
    step(learner, [make_window(0, [1, 5, 7])])
    moved = [k for k, v in student.module.named_parameters() if (v != before[k]).any()]
    assert len(moved) > 0.9 * len(list(student.module.parameters()))


def test_head_warm_up_leaves_the_student_alone(student, teacher, config):
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    learner = McmTrainer(student, teacher, config)
    head = learner.head.predictor[1].weight.clone()
    step(learner, [make_window(0, [1, 5, 7])], learning=False)
    for name, tensor in student.module.state_dict().items():
        assert_close(tensor, before[name], rtol=0, atol=0)
    assert (learner.head.predictor[1].weight != head).any()


@pytest.mark.parametrize(("policy", "moves"), [("frozen", False), ("train", True)])
def test_batch_norm_policy(student, teacher, config, policy, moves):
    options = config.optimiser.model_copy(update={"batch_norm": policy})
    learner = McmTrainer(
        student, teacher, config.model_copy(update={"optimiser": options})
    )
    before = {k: v.clone() for k, v in student.module.state_dict().items()}
    step(learner, [make_window(0, [1, 5, 7])])
    after = student.module.state_dict()
    means = [k for k in after if k.endswith("running_mean")]
    assert means
    assert any((after[k] != before[k]).any() for k in means) is moves


@pytest.mark.usefixtures("in_float32")
def test_chunks_add_up_to_the_whole_batch(teacher, config):
    from napari_mcm.core.encoders import load_encoder

    gradients = []
    for size in (1, 4):
        part = config.model_copy(update={"chunk_windows": size})
        learner = McmTrainer(load_encoder(config.student), teacher, part)
        windows = [make_window(n, [n, n + 3], (8,)) for n in range(4)]
        figures = step(learner, windows, factor=0.0)
        gradients.append((figures, [p.grad for p in learner.head.parameters()]))
    (one, a), (two, b) = gradients
    assert one.loss == pytest.approx(two.loss, rel=1e-5)
    assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-4)
    assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_frozen_stages_keep_their_weights(student, teacher, config):
    options = OptimiserConfig(freeze_stages=2)
    prepare_student(student.module, options)
    frozen = [k for k, p in student.module.named_parameters() if not p.requires_grad]
    assert any(name.startswith("conv_stem") for name in frozen)
    assert 0 < len(frozen) < len(list(student.module.parameters()))
    with pytest.raises(ConfigError, match="nothing to learn"):
        prepare_student(student.module, OptimiserConfig(freeze_stages=99))


def test_rates_and_decay_by_kind_of_weight(student):
    head = ContextModel(student.dim, 8, ContextConfig(heads=4))
    groups = parameter_groups(student.module, head, OptimiserConfig(batch_windows=16))
    assert {g["part"]: g["lr"] for g in groups} == {"student": 1e-3, "head": 5e-4}
    for group in groups:
        flat = all(p.ndim <= 1 for p in group["params"])
        assert group["weight_decay"] == (0.0 if flat else 0.05)
    linear = OptimiserConfig(batch_windows=16, lr_scaling="linear")
    assert rate_factor(linear) == 0.25
    assert rate_factor(OptimiserConfig(batch_windows=64)) == 1.0


def test_an_indivisible_width_is_refused():
    with pytest.raises(ConfigError, match="heads"):
        ContextModel(30, 8, ContextConfig(width=30, heads=8))


@pytest.mark.usefixtures("in_float32")
def test_l2_is_the_mean_of_squares_and_begins_at_the_mean(student, teacher, config):
    config = config.model_copy(update={"target": TargetConfig(loss="l2")})
    learner = McmTrainer(student, teacher, config)
    windows = [make_window(n, [1, 5, 7]) for n in range(5)]
    run(learner.measure_targets(windows))
    features = np.concatenate([teacher.encode(w.masked_pixels) for w in windows])
    centred = features - features.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    guess = np.random.default_rng(0).standard_normal(scaled.shape).astype(np.float32)
    # A sum over patches of the mean over dimensions.
    expected = sum(((g - y) ** 2).mean() for g, y in zip(guess, scaled, strict=True))
    loss = learner.target.loss(torch.from_numpy(guess), torch.from_numpy(scaled))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    # The mean is the best constant here: the first loss is the variance of the targets.
    first = step(learner, windows, factor=0.0).loss
    assert first == pytest.approx(float(scaled.var(axis=0).mean()), rel=1e-4)
