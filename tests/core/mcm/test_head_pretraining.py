"""The head learns before the student does: what moves, what is kept, what a kill costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.head_pretraining import HeadPretraining, KeptWindows
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.runtime.jobs import Metrics, Note, Progress, run
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
    advice = "--preset distill" if mode == "masked" else "--preset mcm-kd"
    assert any(advice in e.text for e in events if isinstance(e, Note))
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
    assert list((other.out / "head_start").glob("*.safetensors"))
    run(resume_finetune(other.out))
    ours, theirs = weights(whole.run_dir), weights(other.out)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not (other.out / "head_start").exists()


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
