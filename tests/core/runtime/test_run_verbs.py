"""Every run directory knows its verb, and every verb knows a run that is another's."""

from __future__ import annotations

import itertools
import json
import shlex

import pytest

from napari_mcm.cli.app import main
from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.errors import RunError, WeightsError
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil import MilConfig
from napari_mcm.core.runtime.run_verbs import (
    ENCODER_VERBS,
    RUN_FIELDS,
    check_run_verb,
    resume_command,
    verb_of_run,
)
from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.core.training import Run

CONFIGS = {
    "finetune": FinetuneConfig,
    "mae pretrain": PretrainConfig,
    "classify train": ClassifyConfig,
    "ablate": AblationConfig,
    "mil train": MilConfig,
}
RESUMING = [verb for verb in CONFIGS if verb != "ablate"]


def make_run(folder, verb):
    """An unfinished run as the verb would have begun it."""
    if verb == "ablate":
        Run.create(folder, {**AblationConfig().same_study(), "images": "abc"})
    else:
        Run.create(folder, CONFIGS[verb]().model_dump(mode="json"))
    return folder


@pytest.mark.parametrize("verb", CONFIGS)
def test_a_run_knows_its_verb_and_no_other_verb_claims_it(tmp_path, verb):
    folder = make_run(tmp_path / "run", verb)
    assert verb_of_run(folder) == Run.open(folder).verb == verb
    fields = set(json.loads((folder / "config.json").read_text()))
    assert [name for name, known in RUN_FIELDS.items() if known <= fields] == [verb]


def test_the_command_that_resumes_is_a_line_that_the_verb_reads(tmp_path):
    for verb in RESUMING:
        folder = make_run(tmp_path / f"a run of {verb}", verb)
        assert shlex.split(resume_command(folder)) == [
            *("napari-mcm", *verb.split(), "--resume", str(folder))
        ]
    words = shlex.split(resume_command(make_run(tmp_path / "ablation", "ablate")))
    assert words[:3] == ["napari-mcm", "ablate", "--config"]
    assert words[-2:] == ["--out", str(tmp_path / "ablation")]


@pytest.mark.parametrize(
    ("asked", "owner"),
    [pair for pair in itertools.product(RESUMING, CONFIGS) if pair[0] != pair[1]],
)
def test_resuming_a_run_of_another_verb_is_one_line_with_the_right_command(
    tmp_path, capsys, asked, owner
):
    folder = make_run(tmp_path / "run", owner)
    assert main([*asked.split(), "--resume", str(folder)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and len(lines[0]) < 400
    assert f"is a run of {owner}, not of {asked}" in lines[0]
    assert resume_command(folder) in lines[0]


@pytest.mark.parametrize("owner", [v for v in CONFIGS if v != "mil train"])
@pytest.mark.parametrize("asked", ["mil predict", "mil attention"])
def test_predicting_with_a_run_of_another_verb_is_one_line(
    tmp_path, capsys, asked, owner
):
    folder = make_run(tmp_path / "run", owner)
    (folder / "summary.json").write_text("{}")
    features = tmp_path / "features"
    features.mkdir()
    more = ["--slide", "s", "--out", str(tmp_path / "out")] if "att" in asked else []
    words = [*asked.split(), str(folder), "--features", str(features), *more]
    assert main(words) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert f"is a run of {owner}, not of mil train. Name a run of mil" in lines[0]


def test_reconstructing_with_a_run_of_another_verb_is_one_line(tmp_path, capsys):
    folder = make_run(tmp_path / "run", "finetune")
    assert main(["mae", "reconstruct", str(folder), str(tmp_path)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.startswith("error:") for line in lines].count(True) == 1
    assert "is a run of finetune, not of mae pretrain" in lines[-1]


@pytest.mark.parametrize("verb", CONFIGS)
def test_an_unfinished_run_without_encoder_is_finished_with_its_own_verb(
    tmp_path, verb
):
    from napari_mcm.core.encoders import load_encoder

    folder = make_run(tmp_path / "run", verb)
    with pytest.raises(WeightsError) as caught:
        load_encoder(str(folder))
    if verb in ENCODER_VERBS:
        command = f"napari-mcm {verb} --resume {folder}"
        assert caught.value.hint == f"Finish it with: {command}"
    else:
        assert f"is a run of {verb} that holds no encoder" in str(caught.value)


def test_a_new_run_in_the_folder_of_another_names_how_to_resume_that_one(tmp_path):
    folder = make_run(tmp_path / "run", "mae pretrain")
    with pytest.raises(RunError, match="napari-mcm mae pretrain --resume"):
        Run.create(folder, FinetuneConfig().model_dump(mode="json"))


def test_a_trial_of_an_ablation_belongs_to_the_ablation(tmp_path):
    root = make_run(tmp_path / "ablation", "ablate")
    trial = make_run(root / "cells" / "scratch" / "10pc" / "seed0", "classify train")
    assert verb_of_run(trial) == "ablate"
    assert str(root / "config.json") in resume_command(trial)
    with pytest.raises(RunError, match="is a run of ablate, not of classify train"):
        Run.open(trial, "classify train")
    # The same folders anywhere else are a classifier's.
    alone = make_run(tmp_path / "cells" / "a" / "b" / "seed0", "classify train")
    assert verb_of_run(alone) == "classify train"


def test_folders_of_studies_and_comparisons_are_known(tmp_path):
    for file, verb in (("study.json", "study"), ("compare.json", "mil compare")):
        folder = tmp_path / verb.replace(" ", "_")
        folder.mkdir()
        (folder / file).write_text("{}")
        assert verb_of_run(folder) == verb
        with pytest.raises(RunError, match=f"is a run of {verb}, not of finetune"):
            check_run_verb(folder, "finetune")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"student": 1}', "null"])
def test_other_folders_are_of_no_verb(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert verb_of_run(tmp_path) == "" == resume_command(tmp_path)
    check_run_verb(tmp_path, "finetune")
    assert verb_of_run(tmp_path / "missing") == ""


def test_options_of_another_version_are_one_line(tmp_path):
    content = MilConfig().model_dump(mode="json")
    folder = tmp_path / "run"
    Run.create(folder, {**content, "strange": 1, "seeds": -1, "split": {"folds": "x"}})
    with pytest.raises(RunError) as caught:
        Run.open(folder, "mil train").options(MilConfig)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
