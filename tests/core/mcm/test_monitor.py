"""Collapse and divergence are seen when they happen, and not before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mcm.core.errors import TrainingError
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.runtime.jobs import Metrics, Note, run
from napari_mcm.core.training import Run
from napari_mcm.core.training.monitor import DivergenceMonitor, effective_rank
from tests.core.mcm.conftest import make_window


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    line = torch.randn(50, 1) * torch.randn(1, 20)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    even = torch.eye(10)
    assert effective_rank(torch.cat([even, -even])) == pytest.approx(10, rel=1e-3)
    assert effective_rank(torch.ones(9, 5)) == 0
    assert np.isnan(effective_rank(torch.full((4, 4), float("nan"))))


def steps(**figures):
    length = len(next(iter(figures.values())))
    defaults = {"loss": 1.0, "feature_std": 1.0, "feature_rank": 9.0}
    for i in range(length):
        yield defaults | {name: values[i] for name, values in figures.items()}


def test_a_collapse_is_named_once():
    watch, told = DivergenceMonitor({}), []
    for values in steps(feature_std=[1.0] * 8 + [0.1] * 12):
        watch.add(values)
        told.append(watch.collapse())
    assert [bool(text) for text in told].count(True) == 1
    assert "spread" in next(filter(None, told))
    assert not told[8], "one low step is no collapse"


def test_what_falls_a_little_is_no_collapse_and_no_divergence():
    watch = DivergenceMonitor({})
    for values in steps(feature_rank=[9.0] * 6 + [5.0] * 20, loss=[1] * 6 + [1.3] * 20):
        watch.add(values)
        assert not watch.collapse() and not watch.diverged and watch.healthy


def test_a_rising_loss_is_not_saved_from_and_then_stops():
    watch, states = DivergenceMonitor({}), []
    for values in steps(loss=[1.0] * 6 + [2.5] * 8 + [9.0] * 8):
        watch.add(values)
        states.append((watch.healthy, watch.diverged))
    assert states[5] == (True, False)
    assert states[13] == (False, False)
    assert states[-1] == (False, True)


def test_a_watch_goes_on_after_a_resume():
    past = {"loss": [1.0] * 8, "feature_std": [1.0] * 8, "feature_rank": [9.0] * 8}
    watch = DivergenceMonitor(past)
    for values in steps(feature_rank=[1.0] * 5):
        watch.add(values)
    assert "effective rank" in watch.collapse()


def test_a_collapsing_run_says_so(config, monkeypatch):
    from napari_mcm.core.mcm import trainer as learner

    many = config.optimiser.model_copy(update={"batch_windows": 1})
    count = []

    def gauges(features):
        count.append(1)
        return (1.0, 9.0) if len(count) < 7 else (0.01, 1.0)

    monkeypatch.setattr(learner, "_gauges", gauges)
    events = []
    run(finetune(config.model_copy(update={"optimiser": many})), events.append)
    warnings = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert len(warnings) == 2 and "collapse" in warnings[0]


def test_a_divergence_keeps_the_last_good_checkpoint(config, monkeypatch):
    config = config.model_copy(
        update={
            "checkpoint_seconds": 0.0,
            "optimiser": config.optimiser.model_copy(update={"batch_windows": 1}),
        }
    )
    real, count = McmTrainer._update, []

    def update(self, factor, learning):
        count.append(1)
        norm = real(self, factor, learning)
        return float("nan") if len(count) == 4 else norm

    monkeypatch.setattr(McmTrainer, "_update", update)
    with pytest.raises(TrainingError, match="lower --student-lr.*batch-norm frozen"):
        run(finetune(config))
    _, state = Run.open(config.out).load_checkpoint()
    assert state["step"] == 3
    events = []
    run(resume_finetune(config.out), events.append)
    assert min(e.step for e in events if isinstance(e, Metrics)) == 3


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_gradients_of_chunks_are_those_of_the_whole(student, teacher, config, size):
    # Different numbers of masked patches: each patch counts the same, not each window.
    windows = [make_window(n, list(range(n + 1)), (8,)) for n in range(5)]
    gradients = []
    for chunk in (size, 5):
        from napari_mcm.core.encoders import load_encoder

        part = config.model_copy(update={"chunk_windows": chunk})
        learner = McmTrainer(load_encoder(config.student), teacher, part)
        figures = run(learner.step(windows, 0.0, True, 0))
        modules = (learner.student.module, learner.head)
        gradients.append(
            (
                figures.loss,
                torch.cat([p.grad.flatten() for m in modules for p in m.parameters()]),
            )
        )
    (loss, one), (whole, two) = gradients
    assert loss == pytest.approx(whole, rel=1e-6)
    assert float((one - two).norm() / two.norm()) < 1e-4
