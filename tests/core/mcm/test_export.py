"""What card and recipe say of a fine-tuning: what was done, in each context mode."""

from __future__ import annotations

import json

import pytest

from napari_mcm.core.encoders.learned_from import LearnedFrom
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.config import PRESET_LABELS, PRESETS
from napari_mcm.core.mcm.export import export_student

SUMMARY = {
    "mpp": 1.0,
    "windows": 1272,
    "steps": 318,
    "loss_first": 0.5,
    "loss_last": 0.4,
    "held_out": {
        "windows": 7,
        "loss": 0.45,
        "constant": 0.44,
        "training_constant": 0.46,
        "visible_mean": 0.5,
    },
}


@pytest.fixture
def export(student, teacher, config, tmp_path):
    """Give a function that exports a student and returns its card and recipe."""

    def make(preset, **options):
        given = config.model_dump(mode="json", exclude_unset=True)
        del given["context"]["context_mode"]
        given["context"] |= options
        if preset == "self":
            del given["teacher"]
        asked = FinetuneConfig.model_validate({**given, "preset": preset})
        folder = tmp_path / preset / "encoder"
        slides = ["a", "b"]
        export_student(folder, student, teacher, asked, SUMMARY, slides, LearnedFrom())
        recipe = json.loads((folder / "recipe.json").read_text())["fine_tuning"]
        return (folder / "README.md").read_text(), recipe

    return make


MASKED = {"position", "depth", "heads", "width", "mlp_ratio", "dropout"}


def test_plain_distillation_has_no_window_and_no_mask(export):
    card, recipe = export("distill")
    assert (
        "| context | none: each patch is seen on its own, nothing is masked |" in card
    )
    assert "| target | the teacher's features of the same patch |" in card
    assert "50% of the patches, by chance, of 1,272 squares of 3 × 3 of 2 sl" in card
    assert "% masked" not in card and "windows of 2" not in card
    assert recipe["method"] == "per-patch distillation"
    assert recipe["context"].startswith("none")
    assert recipe["target"] == "the teacher's features of the same patch"
    assert not MASKED & set(recipe["options"]["context"])
    assert recipe["options"]["context"]["mask_ratio"] == 0.5
    card, _ = export("recommended", mask_ratio=0)
    assert "| trained on | all patches of 1,272 squares of 3 × 3 of 2 slide(s)" in card


def test_context_enriched_distillation_says_over_what_the_mean_is(export):
    card, recipe = export("neighbours")
    assert "by context-enriched distillation" in card
    assert (
        "| context | none: each patch is seen on its own, nothing is masked |" in card
    )
    assert "mean of the teacher's features over the 3 × 3 patches around each" in card
    assert "| trained on | all patches of 1,272 squares" in card
    assert "everything else is a control" not in card and "% masked" not in card
    assert "3 × 3 patches around" in recipe["target"]
    unused = MASKED | {"mask_ratio"}
    assert not unused & set(recipe["options"]["context"])


@pytest.mark.parametrize(
    ("preset", "named", "said"),
    [
        ("mcm-kd", "MCM-KD", "3 × 3 patches, 50% masked |"),
        ("mcm-kd-l2", "MCM-KD", "3 × 3 patches, 50% masked |"),
        (
            "foreign",
            "MCM-KD with context from elsewhere",
            "50% masked, the visible patches of another window of the slide |",
        ),
        (
            "shuffled",
            "MCM-KD with shuffled positions",
            "50% masked, the patches in random places |",
        ),
        ("self", "MCM-KD without a teacher", "3 × 3 patches, 50% masked |"),
        ("head", "MCM-KD of the head alone", "3 × 3 patches, 50% masked |"),
    ],
)
def test_masked_context_says_who_was_seen(export, preset, named, said):
    card, recipe = export(preset)
    assert said in card and f"by {named}\n" in card
    assert "| target | the teacher's features of the masked patches |" in card
    assert "| trained on | 1,272 windows of 2 slide(s)" in card
    assert recipe["method"] == named
    assert set(recipe["options"]["context"]) >= MASKED | {"mask_ratio"}
    loss = recipe["options"]["target"]["loss"]
    assert loss == ("l2" if preset == "mcm-kd-l2" else "l1")
    assert f"| loss ({loss}, " in card
    assert "best constant 0.4400, that of training 0.4600" in card


def test_statistics_alone_predict_nothing(export):
    card, recipe = export("adabn")
    assert "| context | none: nothing is predicted |" in card
    assert "| target | none: batch-norm statistics are averaged |" in card
    assert recipe["method"].startswith("AdaBN")


def test_every_preset_has_a_label_of_its_own():
    assert set(PRESET_LABELS) == set(PRESETS)
    assert len(set(PRESET_LABELS.values())) == len(PRESETS)
    help_text = FinetuneConfig.model_fields["preset"].description
    assert all(f"{n}: {label}" in help_text for n, label in PRESET_LABELS.items())
