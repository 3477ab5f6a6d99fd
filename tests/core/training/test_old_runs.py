"""Run folders of earlier versions resume: what checkpoints hold, and a folder as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from napari_mcm.core.cells import ClassifyConfig, FitConfig
from napari_mcm.core.cells.training import classify, resume_classify
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mae import PretrainConfig, RecipeConfig
from napari_mcm.core.mae.pretraining import pretrain, resume_pretrain
from napari_mcm.core.mcm import ContextConfig, FinetuneConfig, OptimiserConfig
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mil import results
from napari_mcm.core.mil.train import resume_train
from napari_mcm.core.runtime.jobs import Metrics, run
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.core.training.run import Run
from tests.core.cells.conftest import write_classes
from tests.core.mae.conftest import CPU, LIGHT, SMALL, write_pictures
from tests.core.mcm.conftest import STUDENT, TEACHER
from tests.core.mil.conftest import write_cohort

# A MIL run of two folds, cancelled in the second, as version 0.1 wrote it; `expected` has
# the weights that the same version ended in when it was not cancelled.
OLD_MIL_RUN = Path(__file__).parent / "old_mil_run"


LATER = ("coherence", "target")


def mae(folder, _):
    pictures = write_pictures(folder / "pictures", 8)
    recipe = RecipeConfig(batch_size=4, steps=4)
    config = PretrainConfig(pictures=(pictures,), model=SMALL, masking=LIGHT)
    return config.model_copy(update={"recipe": recipe, "compute": CPU})


def cells(folder, _):
    data = write_classes(folder / "cells", {"Eosinophil": 8, "Neutrophil": 8})
    fit = FitConfig(steps=4, batch_size=4)
    return ClassifyConfig(data=data, model=SMALL, fit=fit, compute=CPU)


def mcm(_, slide):
    return FinetuneConfig(
        slides=(slide,),
        student=STUDENT,
        teacher=TEACHER,
        grid=GridConfig(patch_size=32, mpp=1.0),
        tissue=TissueConfig(tissue_mpp=4),
        context=ContextConfig(context_mode="masked", s=3, depth=1, heads=2, width=16),
        optimiser=OptimiserConfig(batch_windows=1, head_epochs=0),
        compute=CPU,
    )


@pytest.mark.parametrize(
    ("config_of", "start", "resume", "parts", "data"),
    [
        (mae, pretrain, resume_pretrain, {"model", "adam"}, "images"),
        (cells, classify, resume_classify, {"model", "adam"}, "images"),
        (mcm, finetune, resume_finetune, {"student", "head", "adam"}, "slides"),
    ],
)
def test_checkpoints_keep_their_layout(
    config_of, start, resume, parts, data, tmp_path, tissue_slide
):
    config = config_of(tmp_path, tissue_slide)
    config = config.model_copy(update={"out": tmp_path / "run"})
    job = start(config)
    next(event for event in job if isinstance(event, Metrics) and event.step == 1)
    job.close()
    cancelled = Run(config.out)
    tensors, state = cancelled.load_checkpoint()
    # Earlier versions kept less.
    tensors = {n: t for n, t in tensors.items() if n.split("/")[0] not in LATER}
    assert {name.split("/")[0] for name in tensors} == parts
    assert {n.split("/")[2] for n in tensors if n.startswith("adam/0/")} == {
        *("step", "exp_avg", "exp_avg_sq")
    }
    assert state.keys() == {"step", data, "damaged", "precision"} and state["step"] == 2
    # The first versions did not state the precision.
    del state["precision"]
    cancelled.save_checkpoint(tensors, state)
    steps = []
    run(
        resume(config.out),
        lambda event: steps.append(event.step) if isinstance(event, Metrics) else None,
    )
    assert steps[0] == 2 and cancelled.metrics()["step"] == list(range(steps[-1] + 1))


def test_a_mil_run_of_an_earlier_version_ends_in_the_weights_of_that_version(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "write_plots", lambda *_: [])
    write_cohort(tmp_path, slides=16)
    folder = shutil.copytree(OLD_MIL_RUN / "run", tmp_path / "run")
    config = (folder / "config.json").read_text()
    # As JSON, since the folder's name may hold backslashes.
    (folder / "config.json").write_text(
        config.replace("COHORT", json.dumps(str(tmp_path))[1:-1])
    )
    epochs = []
    run(
        resume_train(folder),
        lambda event: epochs.append(event.step) if isinstance(event, Metrics) else None,
    )
    assert epochs == [2, 3, 4, 5]
    for file in (OLD_MIL_RUN / "expected").iterdir():
        expected = load_file(file)
        ended = load_file(folder / "models" / file.stem / "model.safetensors")
        assert ended.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(ended[name], tensor, rtol=1e-4, atol=1e-5)
