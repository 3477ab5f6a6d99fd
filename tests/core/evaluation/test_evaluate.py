"""The whole evaluation on planted features, from folders and from slides."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.encoders.cost import measure_cost
from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.evaluation import EvaluateConfig, ProtocolConfig, evaluate
from napari_mcm.core.evaluation import metrics as measures_module
from napari_mcm.core.evaluation.metrics import TITLES
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.tissue import TissueConfig
from tests.core.conftest import stained_image
from tests.core.evaluation.conftest import region, write_regions

QUICK = ProtocolConfig(draws=5, resamples=200, strength=1.0)


def config(folder, **given):
    settings = {
        "features": (f"weak={folder / 'weak'}", str(folder / "strong")),
        "labels": (folder / "labels",),
        "out": folder / "out",
        "protocol": QUICK,
    }
    return EvaluateConfig(**settings | given)


def test_the_better_encoder_is_better_in_every_figure(study):
    folder = study()
    events = []
    result = run(evaluate(config(folder)), events.append)
    assert result.encoders == ("weak", "strong")
    # Of 80 patches a slide 5 are undetermined.
    assert result.classes == {"stroma": 3 * 35, "tumour": 3 * 40}
    for measure in ("few_shot_auroc", "similarity_auroc", "probe_auroc", "knn_auroc"):
        row = result.row(measure, "strong")
        assert row.difference is not None and row.difference > 0.05
        assert row.difference_interval is not None and row.difference_interval[0] > 0
        assert row.interval[0] <= row.value <= row.interval[1] <= 1
        assert result.row(measure, "weak").difference is None
    assert result.measures() == list(TITLES)
    assert result.majority == pytest.approx(120 / 225)
    assert "fewer than 5 groups (3)" in result.resampling
    told = [event.text for event in events if isinstance(event, Note)]
    assert any("225 labelled patches" in line for line in told)
    assert any("15 undetermined" in line for line in told)


def test_averaging_neighbours_helps_where_their_noise_is_independent(study):
    result = run(evaluate(config(study(weak=0.7, strong=6.0))))
    helped, needless = (
        result.row("neighbour_gain", name).value for name in ("weak", "strong")
    )
    assert helped > 0.1
    assert abs(needless) < 0.02


@pytest.fixture(autouse=True)
def no_figure(request, monkeypatch):
    """Drawing takes longer than all the rest: one test looks at it."""
    if "figure" not in request.node.name:
        monkeypatch.setattr(
            "napari_mcm.core.evaluation.figure.save_figure", lambda *_: 0
        )
        monkeypatch.setattr("napari_mcm.core.evaluation.figure.draw_evaluation", str)


def test_tables_and_figure_are_written(study):
    folder = study()
    result = run(evaluate(config(folder)))
    kept = json.loads((folder / "out" / "evaluation.json").read_text())
    assert kept["encoders"] == ["weak", "strong"]
    assert kept["protocol"]["few_shot"] == 10 and kept["protocol"]["mpp"] == 1
    first = kept["measures"][0]
    assert first["measure"] == "few_shot_auroc"
    assert len(first["details"]["draws"]) == 5
    assert first["value"] == result.rows[0].value
    lines = (folder / "out" / "evaluation.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(TITLES)
    assert (folder / "out" / "evaluation.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((folder / "out").glob(".part*"))


def test_what_is_measured_is_measured_once(study, monkeypatch):
    folder = study()
    first = run(evaluate(config(folder)))
    made = []
    for name, part in measures_module.PARTS.items():

        def make(features, task, name=name, whole=part.make):
            made.append(name)
            return (yield from whole(features, task))

        again = replace(part, make=make)
        monkeypatch.setitem(measures_module.PARTS, name, again)
    second = run(evaluate(config(folder)))
    assert made == []
    assert [r.value for r in second.rows] == [r.value for r in first.rows]
    assert [r.interval for r in second.rows] == [r.interval for r in first.rows]
    # Other draws are other figures, but of the few-shot probe only.
    run(evaluate(config(folder, protocol=QUICK.model_copy(update={"seed": 1}))))
    assert made == ["few_shot"] * 2
    made.clear()
    (part,) = (folder / "out" / "parts").glob("weak-knn-*.json")
    part.write_text("{")
    run(evaluate(config(folder)))
    assert made == ["knn"]


def test_other_features_are_measured_anew(study):
    folder = study(slides=2)
    asked = config(folder, features=(str(folder / "weak"),))
    before = run(evaluate(asked)).row("probe_auroc", "weak").value
    shutil.rmtree(folder / "weak")
    shutil.copytree(folder / "strong", folder / "weak")
    assert run(evaluate(asked)).row("probe_auroc", "weak").value > before + 0.1


def test_a_cancel_is_heard_at_once_and_gone_on_from(study):
    folder = study()
    job = evaluate(config(folder))
    for event in job:
        if isinstance(event, Progress) and "weak: Similarity" in event.stage:
            break
    job.close()
    assert not (folder / "out" / "evaluation.json").exists()
    assert [p.name.split("-")[1] for p in (folder / "out/parts").iterdir()] == [
        "few_shot"
    ]
    assert run(evaluate(config(folder))).rows


def test_patients_are_left_out_and_drawn_as_a_whole(study):
    folder = study(slides=6)
    table = folder / "groups.csv"
    rows = [f"slide_{i},P{max(i - 1, 0)}" for i in range(6)]
    table.write_text("\n".join(["slide,patient", *rows]))
    result = run(evaluate(config(folder, groups=table)))
    assert result.groups == ("P0", "P1", "P2", "P3", "P4")
    assert result.level == "group" and result.resampling.startswith("5 groups")
    by_group = result.row("probe_auroc", "weak").details["by_group"]
    assert list(by_group) == list(result.groups)
    assert np.mean(list(by_group.values())) == pytest.approx(
        result.row("probe_auroc", "weak").value
    )


def test_one_class_may_be_the_one_that_counts(study):
    folder = study()
    asked = config(folder, exclude=(), positive="tumour")
    result = run(evaluate(asked))
    assert list(result.classes) == ["stroma", "tumour", "undetermined"]
    assert (
        run(evaluate(config(folder, exclude=()))).rows[0].value != result.rows[0].value
    )
    with pytest.raises(ConfigError, match="--positive: no patch is of class cancer"):
        run(evaluate(config(folder, positive="cancer")))


def test_three_encoders_and_one_can_be_drawn(study):
    folder = study()
    shutil.copytree(folder / "weak", folder / "copy")
    many = tuple(str(folder / name) for name in ("weak", "strong", "copy"))
    result = run(evaluate(config(folder, features=many)))
    same = result.row("probe_auroc", "copy")
    assert same.difference == 0 and same.difference_interval == (0, 0)
    alone = run(evaluate(config(folder, features=many[:1])))
    assert {row.difference for row in alone.rows} == {None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": ()}, "nothing to compare"),
        ({"out": None}, "no output folder"),
        ({"labels": ()}, "--labels: are missing"),
        ({"slides": ("a.svs",)}, "cannot be combined with slides"),
        ({"classes": ("tumour", "fat")}, "no patch is of class fat"),
        ({"classes": ("tumour",)}, "1 class"),
        (
            {"protocol": ProtocolConfig(few_shot=80)},
            "class stroma has 70 training patches",
        ),
        ({"features": ("nowhere",)}, "folder of features does not exist"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_line(study, given, message):
    with pytest.raises((ConfigError, FeatureError), match=message) as told:
        run(evaluate(config(study(), **given)))
    assert "\n" not in str(told.value)


def test_one_slide_is_not_enough_to_test_on_another(study):
    with pytest.raises(ConfigError, match="one group .*Label a second slide"):
        run(evaluate(config(study(slides=1))))


def test_slides_that_an_encoder_has_learned_from_are_told(study):
    folder = study()
    for file in (folder / "strong").iterdir():
        described = file / "zarr.json"
        content = json.loads(described.read_text())
        record = {"slides": {"of slide_1": "called otherwise then"}, "probes": {}}
        content["attributes"]["encoder"]["learned_from"] = record
        described.write_text(json.dumps(content))
    events = []
    result = run(evaluate(config(folder)), events.append)
    warnings = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert [text for text in warnings if "training set" in text] == [
        "slide slide_1 is in the training set of encoder strong: figures on it flatter "
        "the encoder"
    ]
    assert result.protocol["seen_slides"] == {"weak": [], "strong": ["slide_1"]}
    assert result.protocol["costs"] == {"weak": None, "strong": None}


def test_slides_that_lack_labels_or_features_are_left_out_and_told(study):
    folder = study()
    shutil.rmtree(folder / "strong" / "slide_0.features.zarr")
    events = []
    result = run(evaluate(config(folder)), events.append)
    assert result.groups == ("slide_1", "slide_2")
    told = [event.text for event in events if isinstance(event, Note)]
    assert "slide_0 is left out: only weak has features of it" in told
    (folder / "labels" / "slide_1_regions.geojson").unlink()
    with pytest.raises(ConfigError, match="one group"):
        run(evaluate(config(folder)))


def test_slides_are_extracted_first_and_only_once(write_slide, tmp_path):
    slides = []
    for seed, name in enumerate(("left", "right")):
        slides.append(write_slide(stained_image(1200, 1000, seed), f"{name}.ome.tif"))
        write_regions(
            tmp_path / "labels" / f"{name}.geojson",
            region("tumour", 0, 0, 600, 1000),
            region("stroma", 600, 0, 1200, 1000),
        )
    asked = EvaluateConfig(
        slides=tuple(slides),
        encoder="random:test_resnet",
        labels=(tmp_path / "labels",),
        out=tmp_path / "out",
        protocol=QUICK,
        grid=GridConfig(patch_size=64),
        tissue=TissueConfig(tissue_mpp=4),
        compute=ComputeConfig(device="cpu", precision="float32"),
    )
    result = run(evaluate(asked))
    assert result.encoders == ("random-test_resnet",)
    assert result.groups == ("left", "right")
    cost = measure_cost(load_encoder(asked.encoder[0]), 64)
    assert result.protocol["costs"] == {"random-test_resnet": asdict(cost)}
    events = []
    run(evaluate(asked), events.append)
    assert any("is complete already" in str(event) for event in events)
