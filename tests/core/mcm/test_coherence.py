"""Coherence of the gradient: what it is, that it is resumed, and when it warns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.mcm import coherence
from napari_mcm.core.mcm.coherence import GradientCoherence
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.runtime.jobs import Metrics, run
from napari_mcm.core.training import Run
from tests.core.mcm.conftest import make_window


def cosine(one, other):
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def flat(parameters):
    given = [p for p in parameters if p.grad is not None]
    return torch.cat([p.grad.ravel() for p in given]).double().numpy()


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.usefixtures("in_float32")
def test_it_is_the_cosine_of_the_even_and_the_odd_steps(
    teacher, config, monkeypatch, chunk
):
    monkeypatch.setattr(coherence, "BLOCK", 4)
    config = config.model_copy(update={"chunk_windows": chunk})
    learner = McmTrainer(load_encoder(config.student), teacher, config)
    weights = list(learner.student.module.parameters())
    gradients, found = [], []
    for number in range(10):
        windows = [make_window(3 * number + i, [1, 5, 7]) for i in range(3)]
        # The head alone does not count: it has no gradient of the student.
        if number == 1:
            alone = run(learner.step(windows, 1.0, False, number))
            assert np.isnan(alone.gradient_coherence)
            continue
        figures = run(learner.step(windows, 1.0, True, number))
        found.append(figures.gradient_coherence)
        gradients.append(flat(weights))
    measured = np.isfinite(found)
    assert np.flatnonzero(measured).tolist() == [3, 7]
    for end in (4, 8):
        block = gradients[end - 4 : end]
        expected = cosine(block[0] + block[2], block[1] + block[3])
        assert found[end - 1] == pytest.approx(expected, abs=1e-5)
        assert abs(expected) < 0.999


def test_it_is_the_signal_s_part_of_the_power():
    """16 steps of a signal in noise, both of which are known."""
    rng = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.zeros(200, 500))
    signal = torch.randn(weight.shape, generator=rng)
    half = coherence.BLOCK // 2
    for strength in (0.0, 0.1, 0.35, 3.0):
        measure, found = GradientCoherence([weight]), []
        for _ in range(coherence.BLOCK):
            noise = torch.randn(weight.shape, generator=rng)
            weight.grad = strength * signal + noise
            found.append(measure.add())
        power = half * strength**2
        assert np.isnan(found[:-1]).all()
        assert found[-1] == pytest.approx(power / (1 + power), abs=0.02)


def test_frozen_weights_and_missing_gradients_do_not_matter(monkeypatch):
    monkeypatch.setattr(coherence, "BLOCK", 2)
    moving, idle = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    measure = GradientCoherence([moving, idle, frozen])
    moving.grad = torch.tensor([3.0, 4.0, 0.0])
    assert np.isnan(measure.add())
    moving.grad = torch.tensor([3.0, -4.0, 0.0])
    assert measure.add() == pytest.approx((9 - 16) / 25)
    moving.grad = None
    assert np.isnan([measure.add(), measure.add()]).all()
    assert np.isnan(GradientCoherence([frozen]).add())


@pytest.fixture
def short(config, monkeypatch):
    """Give a function that makes a run with blocks of four steps of one window."""
    monkeypatch.setattr(coherence, "BLOCK", 4)

    def make(name, **options):
        options = {"batch_windows": 1, "head_epochs": 0, "epochs": 2, **options}
        update = {"optimiser": config.optimiser.model_copy(update=options)}
        return config.model_copy(update=update | {"out": config.out.parent / name})

    return make


def column(run_dir):
    return Run.open(run_dir).metrics()["gradient_coherence"]


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_a_resumed_run_measures_the_same(short, at):
    whole = run(finetune(short("whole")))
    other = short("cancelled")
    job = finetune(other)
    next(e for e in job if isinstance(e, Metrics) and e.step == at)
    job.close()
    run(resume_finetune(other.out))
    one, two = column(whole.run_dir), column(other.out)
    assert np.isfinite(one).sum() >= 4
    np.testing.assert_array_equal(one, two)
    summary = Run.open(other.out).summary()
    assert summary["gradient_coherence"] == pytest.approx(np.nanmedian(one))


def test_checkpoints_without_it_start_a_block(short):
    other = short("early")
    job = finetune(other)
    next(e for e in job if isinstance(e, Metrics) and e.step == 1)
    job.close()
    begun = Run(other.out)
    tensors, state = begun.load_checkpoint()
    kept = {n: t for n, t in tensors.items() if not n.startswith("coherence/")}
    assert len(kept) < len(tensors)
    begun.save_checkpoint(kept, state)
    run(resume_finetune(other.out))
    assert np.flatnonzero(np.isfinite(column(other.out)))[0] == 2 + 3


def test_what_does_not_move_has_none(short):
    result = run(finetune(short("head", learn="head")))
    assert "gradient_coherence" not in Run.open(result.run_dir).metrics()
    assert "gradient_coherence" not in Run.open(result.run_dir).summary()
