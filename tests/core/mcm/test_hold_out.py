"""Places kept out of training: whose, how many, and what is measured on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mcm.core.errors import TrainingError
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.validation import Validation
from napari_mcm.core.mcm.window_pixels import read_window
from napari_mcm.core.mcm.windows import Source, hold_out_blocks, plan_epoch
from napari_mcm.core.runtime.jobs import Meter, Note, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.training import Run


@pytest.fixture
def source(tissue_slide, config):
    slide = open_slide(tissue_slide)
    return Source(slide, find_tissue(slide, config.tissue))


@pytest.fixture
def kept_out(config):
    options = config.held_out.model_copy(
        update={"validation": 0.25, "validate_every": 2}
    )
    return config.model_copy(update={"held_out": options})


def pixels_of(refs, size):
    """Paint the level-0 pixels that windows cover."""
    painted = np.zeros(size[::-1], bool)
    for ref in refs:
        for x, y in ref.grid.xy[ref.index[ref.index >= 0]]:
            w, h = (round(side) for side in ref.grid.patch_size_level0)
            painted[y : y + h, x : x + w] = True
    return painted


def test_no_pixel_is_both_learned_from_and_kept_out(source, kept_out):
    held_out = hold_out_blocks([source], kept_out, 1.0)
    kept = pixels_of(held_out.refs, source.slide.size)
    assert kept.any()
    for epoch in range(6):
        refs = plan_epoch([source], kept_out, 1.0, epoch, held_out)
        assert refs
        assert not (pixels_of(refs, source.slide.size) & kept).any()
    # Without it they would meet: the test can fail.
    refs = plan_epoch([source], kept_out, 1.0, 0)
    assert (pixels_of(refs, source.slide.size) & kept).any()


def test_about_the_part_asked_for_is_kept_out_by_the_seed(source, kept_out):
    held_out = hold_out_blocks([source], kept_out, 1.0)
    kept = pixels_of(held_out.refs, source.slide.size).sum()
    learned = pixels_of(
        plan_epoch([source], kept_out, 1.0, 0, held_out), source.slide.size
    ).sum()
    assert 0.1 < kept / (kept + learned) < 0.6
    again = hold_out_blocks([source], kept_out, 1.0)
    assert [r.key for r in again.refs] == [r.key for r in held_out.refs]
    other = kept_out.optimiser.model_copy(update={"seed": 1})
    moved = hold_out_blocks(
        [source], kept_out.model_copy(update={"optimiser": other}), 1.0
    )
    assert not np.array_equal(moved.boxes[0], held_out.boxes[0])


def test_too_little_tissue_is_said(source, kept_out):
    large = kept_out.context.model_copy(update={"s": 12, "window_tissue": 0.1})
    with pytest.raises(TrainingError, match="too little tissue"):
        hold_out_blocks([source], kept_out.model_copy(update={"context": large}), 1.0)


def test_losses_are_told_beside_the_guesses_they_must_beat(kept_out):
    events = []
    small = kept_out.optimiser.model_copy(update={"batch_windows": 1})
    config = kept_out.model_copy(update={"optimiser": small})
    result = run(finetune(config), events.append)
    metrics = Run.open(result.run_dir).metrics()
    measured = np.isfinite(metrics["held_out_loss"])
    steps = np.flatnonzero(measured) + 1
    assert steps[0] == 1 and steps[-1] == result.steps
    assert set(steps[1:-1]) <= {n for n in steps if n % 2 == 0}
    assert not measured.all()
    found = result.held_out
    assert found["loss"] == pytest.approx(metrics["held_out_loss"][-1], rel=1e-6)
    assert found["constant"] > 0 and found["visible_mean"] > 0
    assert found["training_constant"] >= found["constant"]
    assert any("best constant" in e.text for e in events if isinstance(e, Note))


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_constant_is_the_best_one(student, teacher, kept_out, source, loss):
    target = kept_out.target.model_copy(update={"loss": loss})
    kept_out = kept_out.model_copy(update={"target": target})
    held_out = hold_out_blocks([source], kept_out, 1.0)
    learner = McmTrainer(student, teacher, kept_out)
    validation = Validation(learner, held_out.refs, kept_out)
    run(validation.prepare())
    found = validation.summary({})
    targets = torch.cat([t for t in validation._targets if t is not None])
    power = {"l1": 1, "l2": 2}[loss]
    others = (
        targets.median(dim=0).values if loss == "l2" else targets.mean(dim=0),
        torch.zeros(targets.shape[1]),
    )
    for guess in others:
        worse = (targets - guess).abs().pow(power).mean()
        assert worse > found["constant"] - 1e-6
    best = targets.mean(dim=0) if loss == "l2" else targets.median(dim=0).values
    right = (targets - best).abs().pow(power).mean()
    assert found["constant"] == pytest.approx(float(right), rel=1e-5)
    assert "training_constant" not in found, "of an early checkpoint"
    refs = plan_epoch([source], kept_out, 1.0, 0, held_out)[:4]
    run(learner.measure_targets(read_window(ref, kept_out) for ref in refs))
    seen = torch.cat([learner.targets_of([read_window(ref, kept_out)]) for ref in refs])
    known = seen.mean(dim=0) if loss == "l2" else seen.median(dim=0).values
    again = Validation(learner, held_out.refs, kept_out)
    events = []
    run(again.prepare(), events.append)
    found = again.summary({})
    of_training = float((targets - known).abs().pow(power).mean())
    assert found["training_constant"] == pytest.approx(of_training, rel=1e-4)
    assert found["training_constant"] > found["constant"]
    told = [event.text for event in events if isinstance(event, Note)]
    assert f"that of training {of_training:.4f}" in told[0]


def test_measuring_changes_nothing(student, teacher, kept_out, source):
    held_out = hold_out_blocks([source], kept_out, 1.0)
    learner = McmTrainer(student, teacher, kept_out)
    validation = Validation(learner, held_out.refs, kept_out)
    run(validation.prepare())
    before = {name: t.clone() for name, t in learner.state().items()}
    one, two = (run(validation.measure(Meter("", 1))) for _ in range(2))
    assert one == two
    assert all(torch.equal(t, before[name]) for name, t in learner.state().items())


def test_a_resumed_run_measures_the_same(kept_out, tmp_path):
    result = run(finetune(kept_out))
    other = kept_out.model_copy(update={"out": tmp_path / "other"})
    job = finetune(other)
    for event in job:
        if getattr(event, "step", None) == 1:
            break
    job.close()
    run(resume_finetune(other.out))
    one, two = (Run.open(path).metrics() for path in (result.run_dir, other.out))
    for name in ("loss", "held_out_loss", "held_out_cosine", "feature_rank"):
        np.testing.assert_array_equal(one[name], two[name])


def test_a_probe_s_figures_stand_beside_the_loss(kept_out):
    calls = []

    def probe(encode):
        calls.append(encode(np.zeros((2, 32, 32, 3), np.uint8)).shape)
        return {"few_shot_auroc": 0.5 + len(calls) / 100}

    result = run(finetune(kept_out, probe))
    column = Run.open(result.run_dir).metrics()["probe_few_shot_auroc"]
    values = [value for value in column if np.isfinite(value)]
    assert len(values) == len(calls) >= 2
    assert values[0] == 0.51
