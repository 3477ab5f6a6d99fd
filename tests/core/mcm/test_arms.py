"""The controls: each differs from the method in the one thing that it is named for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.config import PRESETS, preset_overrides
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.mcm.model import Target
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.window_pixels import read_window
from napari_mcm.core.mcm.windows import plan_epoch
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.training import Run
from tests.core.mcm.conftest import make_window

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def arm(config):
    """Give a function that makes the config of a preset."""

    def make(preset, **update):
        given = config.model_dump(mode="json", exclude_unset=True)
        del given["context"]["context_mode"]
        if preset == "self":
            del given["teacher"]
        return FinetuneConfig.model_validate({**given, "preset": preset, **update})

    return make


@pytest.fixture
def source(tissue_slide, config):
    from napari_mcm.core.mcm.windows import Source
    from napari_mcm.core.slides import open_slide
    from napari_mcm.core.tissue import find_tissue

    slide = open_slide(tissue_slide)
    return Source(slide, find_tissue(slide, config.tissue))


def test_what_is_given_wins_over_a_preset():
    config = FinetuneConfig(preset="paper", optimiser={"batch_norm": "frozen"})
    assert config.target.target_norm == "none"
    assert config.optimiser.batch_norm == "frozen"
    assert preset_overrides(config, "paper")["batch_norm"] == ("train", "frozen")
    again = FinetuneConfig.model_validate_json(config.model_dump_json())
    assert again == config


def test_no_control_differs_from_the_method_in_more_than_its_one_thing():
    method = FinetuneConfig(preset="mcm-kd").model_dump(exclude={"preset"})
    changed = {
        "distill": {"context_mode"},
        "self": {"teacher"},
        "shuffled": {"context_mode"},
        "head": {"learn"},
        "cosine": {"loss"},
        "adabn": {"learn", "batch_norm"},
        # Not a control: it has the loss and the rate that suit it.
        "neighbours": {"context_mode", "loss", "student_lr"},
        "foreign": {"context_mode"},
        "mcm-kd-l2": {"loss"},
    }
    for preset, names in changed.items():
        control = FinetuneConfig(preset=preset).model_dump(exclude={"preset"})
        assert set(differing(method, control)) == names, preset


def differing(one, other):
    for name, value in one.items():
        if isinstance(value, dict):
            yield from differing(value, other[name])
        elif value != other[name]:
            yield name


def test_the_recommended_preset_is_the_default():
    said = FinetuneConfig(preset="recommended").model_dump(exclude={"preset"})
    assert said == FinetuneConfig().model_dump(exclude={"preset"})


@pytest.mark.parametrize(
    "preset", sorted(set(PRESETS) - {"foreign", "neighbours", "recommended"})
)
def test_all_arms_see_the_same_windows_and_as_many_patches(arm, source, preset):
    plain, other = arm("mcm-kd"), arm(preset)
    refs = [plan_epoch([source], c, 1.0, 0) for c in (plain, other)]
    assert [r.key for r in refs[0]] == [r.key for r in refs[1]]
    for one, two in zip(*(r[:4] for r in refs), strict=True):
        ours, theirs = read_window(one, plain), read_window(two, other)
        for name in ("visible_pixels", "masked_pixels"):
            assert patches_of(ours, name) == patches_of(theirs, name)


def patches_of(window, name):
    return sorted(patch.tobytes() for patch in getattr(window, name))


def test_distillation_knows_no_neighbours(student, teacher, arm):
    learner = McmTrainer(student, teacher, arm("distill"))
    window = make_window(0, [1, 5, 7])
    _, before = learner.predict([window])
    assert before.shape == (6, teacher.dim)
    expected = learner.target.scale(
        torch.from_numpy(teacher.encode(window.visible_pixels))
    )
    assert_close(learner.targets_of([window]), expected)
    figures = run(learner.step([window], 0.0, False, 0))
    mean = (before - expected).abs().mean().detach()
    assert figures.loss == pytest.approx(float(mean), rel=1e-3)
    window.visible_pixels[1:] = 255 - window.visible_pixels[1:]
    _, after = learner.predict([window])
    assert_close(after[0], before[0], rtol=1e-4, atol=1e-4)
    assert (after[1:] - before[1:]).abs().amax(dim=1).min() > 1e-3


def test_without_a_teacher_the_target_is_the_student_as_it_began(arm):
    config = arm("self")
    student = load_encoder(config.student)
    frozen = load_encoder(config.teacher_spec)
    begun = {k: v.clone() for k, v in student.module.state_dict().items()}
    learner = McmTrainer(student, frozen, config)
    for number in range(3):
        run(learner.step([make_window(number, [1, 5, 7])], 1.0, True, 0))
    for name, tensor in frozen.module.state_dict().items():
        assert torch.equal(tensor, begun[name])
    moved = student.module.state_dict()
    assert any((moved[name] != begun[name]).any() for name in begun)


def test_shuffling_destroys_the_layout_anew_in_each_window(arm, source):
    plain, shuffled = arm("mcm-kd"), arm("shuffled")
    moves, kept = [], 0
    for ref in plan_epoch([source], plain, 1.0, 0):
        ours, theirs = read_window(ref, plain), read_window(ref, shuffled)
        if (ours.visible | ours.masked).all():
            one, two = slots(ours), slots(theirs)
            moves.append(tuple(two[patch] for patch in sorted(one, key=one.get)))
            kept += slots(read_window(ref, plain)) == one
    assert len(moves) >= 5 and kept == len(moves)
    assert len(set(moves)) == len(moves), "each window its own permutation"
    assert tuple(range(9)) not in moves
    again = read_window(ref, shuffled)
    np.testing.assert_array_equal(again.masked, theirs.masked)


def slots(window):
    """Tell where each patch of a window lies."""
    found = {}
    for name in ("visible", "masked"):
        places = np.flatnonzero(getattr(window, name))
        patches = getattr(window, f"{name}_pixels")
        found |= {p.tobytes(): int(at) for at, p in zip(places, patches, strict=True)}
    return found


def test_adabn_moves_statistics_and_nothing_else(arm):
    config = arm("adabn")
    result = run(finetune(config))
    before = load_encoder(config.student).module.state_dict()
    after = load_file(result.encoder / "model.safetensors")
    for name, tensor in before.items():
        moved = bool((after[name] != tensor).any())
        assert moved is name.endswith(STATISTICS), name
    assert np.isnan(result.loss_last)
    assert np.isfinite(Run.open(result.run_dir).metrics()["feature_rank"]).all()


@pytest.mark.usefixtures("in_float32")
def test_adabn_statistics_are_those_of_the_windows(student, teacher, arm):
    # As weights come that were trained on many photographs.
    for name, buffer in student.module.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(10_000)
        elif name.endswith("running_mean"):
            buffer.fill_(3.0)
    learner = McmTrainer(student, teacher, arm("adabn"))
    windows = [make_window(n, [1, 5, 7]) for n in range(4)]
    for window in windows:
        run(learner.step([window], 1.0, False, 0))
    stem = student.module.conv_stem
    means = []
    for window in windows:
        images = student.normalise(torch.from_numpy(window.visible_pixels))
        means.append(stem(images).mean(dim=(0, 2, 3)))
    expected = torch.stack(means).mean(dim=0)
    assert_close(student.module.bn1.running_mean, expected, rtol=1e-3, atol=1e-5)


def test_adabn_needs_statistics_that_may_move(arm):
    with pytest.raises(ValueError, match="batch_norm train"):
        FinetuneConfig(optimiser={"learn": "statistics"})
    config = arm("adabn", student="random:test_vit")
    with pytest.raises(ConfigError, match="no batch norms"):
        McmTrainer(
            load_encoder("random:test_vit"), load_encoder(config.teacher), config
        )


def test_the_head_alone_learns_on_a_frozen_student(arm):
    config = arm("head")
    result = run(finetune(config))
    after = load_encoder(result.run_dir)
    assert after.fingerprint == load_encoder(config.student).fingerprint
    assert result.loss_last < result.loss_first


@pytest.mark.parametrize("preset", ["distill", "self", "paper"])
def test_arms_learn_and_leave_an_encoder(arm, preset):
    config = arm(preset)
    result = run(finetune(config))
    after = load_encoder(result.run_dir)
    assert after.fingerprint != load_encoder(config.student).fingerprint
    assert (
        after.recipe["fine_tuning"]["options"]["target"] == config.target.model_dump()
    )


@pytest.mark.parametrize("preset", ["distill", "self", "cosine", "mcm-kd-l2"])
def test_each_arm_can_learn_a_batch_by_heart(arm, preset):
    config = arm(preset)
    encoders = (load_encoder(spec) for spec in (config.student, config.teacher_spec))
    learner = McmTrainer(*encoders, config)
    windows = [make_window(n, [n, 8 - n]) for n in range(3)]
    run(learner.measure_targets(windows))
    losses = [run(learner.step(windows, 1.0, True, 0)).loss for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_whitened_targets_spread_alike_in_the_directions_that_matter():
    torch.manual_seed(0)
    scales = torch.tensor([9.0, 3.0, 1.0, *[0.01] * 5])
    features = torch.randn(400, 8) * scales @ torch.linalg.qr(torch.randn(8, 8)).Q + 2
    config = FinetuneConfig(target={"target_norm": "whiten"}).target
    scaled = Target(config).measured(features).scale(features)
    assert_close(scaled.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    values = torch.linalg.svdvals(scaled)
    # 9 and 3 hold 95 % of the variance: they count the same, the rest not at all.
    assert_close(values[0], values[1], rtol=1e-3, atol=0)
    assert values[2] < 1e-3 * values[0]
    assert float((scaled**2).mean()) == pytest.approx(1, rel=1e-3)
