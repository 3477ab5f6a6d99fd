"""A study says what an encoder costs, and where it is tested on what it has learned."""

from __future__ import annotations

import pytest

from napari_mcm.core.encoders import load_encoder, save_encoder
from napari_mcm.core.encoders.cost import measure_cost
from napari_mcm.core.encoders.learned_from import training_record
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.studies.study import _cost
from napari_mcm.core.studies.study_config import StudyConfig, StudySlide
from napari_mcm.core.studies.study_evaluation import evaluate_arm
from tests.core.conftest import stained_image
from tests.core.studies.test_study import TINY, regions


@pytest.fixture
def slides(tmp_path, write_slide):
    found = []
    for number in range(2):
        slide = write_slide(stained_image(500, 400, number), f"s{number}.ome.tif")
        regions(tmp_path / f"s{number}.geojson", 500, 400)
        found.append(StudySlide(slide=slide, labels=tmp_path / f"s{number}.geojson"))
    return found


def test_an_arm_that_has_learned_from_a_tested_slide_is_told(slides, tmp_path):
    encoder = load_encoder(TINY["student"])
    with open_slide(slides[1].slide) as slide:
        recipe = encoder.recipe | training_record([slide]).record()
    tuned = save_encoder(tmp_path / "tuned", encoder.module, recipe, "card")
    study = StudyConfig(evaluation={"protocol": {"draws": 2, "few_shot": 3}})
    options = FinetuneConfig.model_validate(
        {**TINY, "compute": {"precision": "float32"}}
    )

    def said(train, test, folder):
        events = []
        arm = evaluate_arm(str(tuned), train, test, tmp_path / folder, options, study)
        run(arm, events.append)
        texts = [event.text for event in events if isinstance(event, Note)]
        return [text for text in texts if "training set" in text]

    (warning,) = said(slides[:1], slides[1:], "one")
    assert warning.startswith(f"slide s1 is in the training set of encoder {tuned}")
    # slides that classifiers are trained on may be in it
    assert said(slides[1:], slides[:1], "other") == []
    cost = measure_cost(encoder, options.grid.patch_size)
    assert _cost(tmp_path / "one") == {
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
    }
    assert _cost(tmp_path / "none") == {}
