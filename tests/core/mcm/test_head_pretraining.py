"""The head learns before the student does: what moves, what is kept, what a kill costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.head_pretraining import HeadPretraining, KeptWindows
from napari_mcm.core.mcm.loop import plan_windows
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.windows import Source, hold_out_blocks
from napari_mcm.core.runtime.jobs import Metrics, Note, Progress, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.training import Run

EPOCHS = 5


@pytest.fixture
def starting(config):
    """A fine-tuning whose head starts first."""

    def make(name="run", **options):
        options = {"head_epochs": EPOCHS, "head_lr": 1e-3, **options}
        return config.model_copy(
            update={
                "out": config.out.parent / name,
                "optimiser": config.optimiser.model_copy(update=options),
            }
        )

    return make


def until(job, wanted):
    """Take a job's events until one is wanted, and cancel it there."""
    seen = []
    for event in job:
        seen.append(event)
        if wanted(event):
            break
    job.close()
    return seen


def starts(event):
    return isinstance(event, Progress) and event.stage == "Head warm-up"


def weights(run_dir):
    return load_file(run_dir / "encoder" / "model.safetensors")


@pytest.mark.parametrize("mode", ["masked", "none"])
def test_a_head_that_started_knows_more_than_the_constant(
    starting, student, teacher, mode
):
    """All patches of a window show one of three tissues; the teacher names it."""
    context = starting().context.model_copy(update={"context_mode": mode})
    asked = starting(head_epochs=10).model_copy(update={"context": context})
    learner = McmTrainer(student, teacher, asked)
    rng = torch.Generator().manual_seed(0)
    tissues = torch.randint(0, 3, (64,), generator=rng)
    kept = KeptWindows(
        np.ones((64, 9), bool),
        torch.randn(3, student.dim, generator=rng)[tissues]
        .unsqueeze(1)
        .repeat(1, 9, 1),
        torch.randn(3, teacher.dim, generator=rng)[tissues]
        .unsqueeze(1)
        .repeat(1, 9, 1),
    )
    every = kept.taught.reshape(-1, teacher.dim)
    learner.target = learner.target.measured(every)
    constant = learner.target.scale(every).median(dim=0).values
    learner.head.predictor.begin_at(constant)

    def loss():
        visible = np.tile(np.arange(9) % 2 == 0, (64, 1))
        taught = visible if mode == "none" else ~visible
        with torch.no_grad():
            return learner.head_loss(
                kept.seen[visible], visible, ~visible, kept.taught[taught]
            )

    before = loss()
    run(HeadPretraining(learner, [], asked, asked.out).train(kept))
    assert loss() < 0.5 * before


@pytest.mark.parametrize("mode", ["masked", "none"])
def test_only_the_head_moves(starting, config, mode):
    context = config.context.model_copy(update={"context_mode": mode})
    asked = starting().model_copy(update={"context": context})
    events = until(finetune(asked), lambda event: isinstance(event, Metrics))
    told = [e.text for e in events if isinstance(e, Note) and "head warm-up" in e.text]
    assert len(told) == 1 and f"of {EPOCHS}" in told[0]
    notes = [e.text for e in events if isinstance(e, Note)]
    assert any("--preset neighbours" in text for text in notes)
    run_dir = Run.open(asked.out)
    tensors, state = run_dir.load_checkpoint()
    assert state["step"] == 1
    # A step at the warm-up's first rate has hardly moved the student yet.
    begun = load_encoder(config.student).module.state_dict()
    for name, before in begun.items():
        torch.testing.assert_close(
            tensors[f"student/{name}"], before, atol=1e-3, rtol=0
        )


@pytest.mark.parametrize("late", [False, True])
def test_a_cancel_in_it_ends_in_the_same_weights(starting, late):
    whole = run(finetune(starting("whole", head_epochs=3)))
    other = starting("cancelled", head_epochs=3)
    until(finetune(other), lambda e: starts(e) and (not late or e.done > 0))
    assert list((other.out / "head_warm_up").glob("*.safetensors"))
    run(resume_finetune(other.out))
    ours, theirs = weights(whole.run_dir), weights(other.out)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not (other.out / "head_warm_up").exists()


def test_what_was_encoded_is_not_encoded_again(starting, monkeypatch):
    asked = starting(head_epochs=2)
    until(finetune(asked), starts)

    def refuse(*_):
        raise AssertionError("was encoded already")

    job = resume_finetune(asked.out)
    for event in job:
        if isinstance(event, Progress) and "Encoding for" in event.stage:
            monkeypatch.setattr(Encoder, "encode", refuse)
        if starts(event):
            break
    job.close()


def test_the_start_is_kept_once_it_is_over(starting):
    asked = starting(head_epochs=2)
    job = finetune(asked)
    until(job, lambda e: isinstance(e, Note) and "head warm-up" in e.text)
    # The note comes last within it; cancelled there, it is done again.
    again = until(resume_finetune(asked.out), lambda e: isinstance(e, Metrics))
    assert any(starts(event) for event in again)
    once_more = until(resume_finetune(asked.out), lambda e: isinstance(e, Metrics))
    assert not any(starts(event) for event in once_more)


def test_it_sees_other_windows_than_the_steps(starting, tissue_slide):
    asked = starting(placements=2, epochs=2, head_windows=6)
    asked = asked.model_copy(
        update={"held_out": asked.held_out.model_copy(update={"validation": 0.2})}
    )
    slide = open_slide(tissue_slide)
    source = Source(slide, find_tissue(slide, asked.tissue))
    plan = plan_windows(asked, [source], 1.0)
    assert len(plan.warm_up) == 6
    placed = {id(ref.grid) for ref in plan.warm_up}
    assert len(placed) > 1, "from all of its placements"
    steps = {ref.key for batch in plan.batches for ref in batch}
    assert not steps & {ref.key for ref in plan.warm_up}
    origins = {ref.grid.origin for batch in plan.batches for ref in batch}
    assert {ref.grid.origin for ref in plan.warm_up} - origins
    held_out = hold_out_blocks([source], asked, 1.0)
    for ref in plan.warm_up:
        kept = held_out.remove_from(ref.grid, 0)
        assert len(kept) == len(ref.grid), "nothing that is held out"
    # No more than the run has, however many are asked for.
    few = asked.optimiser.model_copy(update={"head_windows": 9_999})
    plan = plan_windows(asked.model_copy(update={"optimiser": few}), [source], 1.0)
    assert len(plan.warm_up) <= plan.windows
    for none in ({"head_epochs": 0}, {"learn": "statistics", "batch_norm": "train"}):
        update = {"optimiser": asked.optimiser.model_copy(update=none)}
        assert not plan_windows(asked.model_copy(update=update), [source], 1.0).warm_up


def test_what_an_earlier_version_began_ends_as_it_would_have(starting, monkeypatch):
    """It warmed up on the windows of the run, and kept them in `head_start`."""
    other = starting("begun", head_epochs=2)
    until(finetune(other), lambda e: isinstance(e, Progress) and "Encoding" in e.stage)
    (other.out / "head_start").mkdir()
    run(resume_finetune(other.out))
    now = run(finetune(starting("now", head_epochs=2)))

    def as_it_was(*given):
        found = plan_windows(*given)
        return replace(found, warm_up=tuple(found.spread(512)))

    monkeypatch.setattr("napari_mcm.core.mcm.finetune.plan_windows", as_it_was)
    then = run(finetune(starting("then", head_epochs=2)))
    ours, theirs, new = (weights(d) for d in (other.out, then.run_dir, now.run_dir))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not all(torch.equal(ours[name], new[name]) for name in ours)
    assert not (other.out / "head_start").exists()
