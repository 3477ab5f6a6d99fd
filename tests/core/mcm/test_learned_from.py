"""An encoder's record of the slides behind it holds through runs, copies and exports."""

from __future__ import annotations

import json
import shutil

import pytest

from napari_mcm.core.encoders import learned_from as records
from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.encoders.export import export_encoder
from napari_mcm.core.encoders.learned_from import (
    LearnedFrom,
    learned_from,
    seen_slides,
    warn_of_seen,
)
from napari_mcm.core.features import ExtractConfig, extract_slides, read_features
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from tests.core.conftest import stained_image


def identity(path):
    with open_slide(path) as slide:
        return {"name": slide.name, "fingerprint": slide.fingerprint}


@pytest.fixture
def trained(config):
    return run(finetune(config)).run_dir


@pytest.fixture
def other_slide(write_slide):
    return write_slide(stained_image(1300, 1100), "other.ome.tif")


def test_a_renamed_copy_is_known_and_another_slide_is_not(
    trained, tissue_slide, other_slide, tmp_path
):
    about = load_encoder(trained).describe()
    copy = shutil.copy(tissue_slide, tmp_path / "of another name.ome.tif")
    assert seen_slides(about, [identity(copy), identity(other_slide)]) == [
        "of another name"
    ]
    assert warn_of_seen(about, [identity(copy)], "mine") == (
        "slide of another name is in the training set of encoder mine: figures on it "
        "flatter the encoder"
    )
    assert warn_of_seen(about, [identity(other_slide)]) == ""
    # the same name does not make it the same slide
    namesake = identity(other_slide) | {"name": identity(tissue_slide)["name"]}
    assert seen_slides(about, [namesake]) == []


def test_a_chain_of_runs_keeps_all_slides(
    trained, config, tissue_slide, other_slide, tmp_path
):
    second = config.model_copy(
        update={
            "student": str(trained),
            "slides": (other_slide,),
            "out": tmp_path / "second",
        }
    )
    both = {identity(tissue_slide)["fingerprint"], identity(other_slide)["fingerprint"]}
    assert (
        set(learned_from(load_encoder(run(finetune(second)).run_dir).recipe).slides)
        == both
    )
    # what a teacher has seen, its student has seen, too
    taught = second.model_copy(
        update={
            "student": config.student,
            "teacher": str(trained),
            "out": tmp_path / "third",
        }
    )
    assert (
        set(learned_from(load_encoder(run(finetune(taught)).run_dir).recipe).slides)
        == both
    )


def test_slides_that_a_run_is_measured_on_are_listed_apart(config, other_slide):
    optimiser = config.optimiser.model_copy(update={"learn": "head"})
    alone = run(finetune(config.model_copy(update={"optimiser": optimiser})))
    record = learned_from(load_encoder(alone.run_dir).recipe)
    # its student is what it was
    assert record.slides == {}
    assert list(record.probes.values()) == ["slide"]


def test_exports_and_feature_files_carry_the_record(
    trained, config, tissue_slide, tmp_path
):
    encoder = load_encoder(trained)
    record = learned_from(encoder.recipe)
    assert list(record.slides) == [identity(tissue_slide)["fingerprint"]]
    hub = export_encoder(encoder, "hf-hub", tmp_path / "hub", 32).path
    shutil.rmtree(trained)
    again = load_encoder(hub)
    assert learned_from(again.recipe) == record
    done = run(
        extract_slides(
            ExtractConfig(
                slides=(tissue_slide,),
                encoder=(str(hub),),
                out=tmp_path / "features",
                grid=config.grid,
                tissue=config.tissue,
            )
        )
    )
    features = read_features(done.files[0])
    assert learned_from(features.encoder) == record
    assert warn_of_seen(features.encoder, [features.grid.slide])


def test_a_run_of_an_earlier_version_is_read_from_its_configuration(
    trained, tissue_slide, tmp_path
):
    file = trained / "encoder" / "recipe.json"
    recipe = json.loads(file.read_text())
    known = recipe.pop("learned_from")
    file.write_text(json.dumps(recipe))
    assert learned_from(load_encoder(trained).describe()).slides == known["slides"]
    folder = load_encoder(trained / "encoder").describe()
    assert learned_from(folder).slides == known["slides"]
    # without the slide, nothing can be said
    tissue_slide.unlink()
    records._of_old_run.cache_clear()
    assert learned_from(load_encoder(trained).describe()) == LearnedFrom()


@pytest.mark.parametrize(
    "encoder",
    [
        {},
        {"spec": "resnet18"},
        {"learned_from": None},
        {"learned_from": {"slides": ["a"]}},
        {"spec": "gone/run", "fine_tuning": {"slides": ["a"]}},
    ],
)
def test_where_nothing_is_known_nothing_is_said(encoder):
    assert learned_from(encoder) == LearnedFrom()
    assert warn_of_seen(encoder, [{"name": "a", "fingerprint": "1"}]) == ""


def test_many_slides_are_one_line():
    slides = [{"name": f"s{n}", "fingerprint": str(n)} for n in range(8)]
    encoder = {"spec": "e"} | LearnedFrom({str(n): "old" for n in range(7)}).record()
    assert warn_of_seen(encoder, slides) == (
        "slides s0, s1, s2, s3, s4 and 2 more are in the training set of encoder e: figures "
        "on them flatter the encoder"
    )
