"""Training and classifying from files: the window's bits, faults, cancel and resume."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.errors import ConfigError, FeatureError, LabelError, RunError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.interchange.formats import save_features, write_foreign
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.labelling import (
    ClassifierConfig,
    LabelSet,
    PatchLabel,
    load_classifier,
    patch_probabilities,
    read_labels,
    save_classifier,
    write_labels,
)
from napari_mcm.core.labelling.applying import apply_classifier
from napari_mcm.core.labelling.config import (
    ClassifyPatchesConfig,
    ImportLabelsConfig,
    TrainPatchesConfig,
)
from napari_mcm.core.labelling.importing import import_labels
from napari_mcm.core.labelling.slide_classes import classify_slide
from napari_mcm.core.labelling.training import gather_labels, train_on, train_patches
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.runtime.run_verbs import resume_command, verb_of_run
from tests.core.labelling.made_labels import label_rows, make_features, true_classes

SLIDES = ("s1", "s2", "s3")
CONFIG = ClassifierConfig(neighbourhood=NeighbourhoodConfig(radius=1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give features of three slides, labels of two of them, and a classifier."""
    labels = LabelSet()
    for name in SLIDES:
        features = make_features(name, noise=1.0)
        save_features(features, tmp_path / "features" / f"{name}.features.zarr")
        if name != "s3":
            labels = label_rows(features, np.arange(0, 180, 13), labels)
    write_labels(tmp_path / "a.labels.json", labels)
    run(train_patches(training(tmp_path)))
    return tmp_path


def training(folder: Path, **more) -> TrainPatchesConfig:
    """Give the options of a training."""
    return TrainPatchesConfig(
        labels=folder / "a.labels.json",
        features=(folder / "features",),
        out=folder / "a.classifier.safetensors",
        classifier=CONFIG,
        **more,
    )


def applying(folder: Path, *features: str, **more) -> ClassifyPatchesConfig:
    """Give the options of an application."""
    return ClassifyPatchesConfig(
        classifier=folder / "a.classifier.safetensors",
        features=tuple(folder / "features" / name for name in features or ("",)),
        out=folder / "out",
        **more,
    )


def rows_of(table: Path) -> list[dict[str, str]]:
    """Read a table."""
    with table.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_the_command_line_and_the_window_have_the_same_bits(folder: Path) -> None:
    """Clicks in another order, features in memory: the numbers are the same."""
    sets = [
        read_features(folder / "features" / f"{name}.features.zarr")
        for name in reversed(SLIDES)
    ]
    labels = read_labels(folder / "a.labels.json")
    shuffled = replace(labels, labels=labels.labels[::-1])
    gathered = gather_labels(shuffled, sets, CONFIG)
    in_order = gather_labels(labels, sets[::-1], CONFIG)
    assert gathered.features.tobytes() == in_order.features.tobytes()
    assert gathered.digest == in_order.digest
    window = train_on(gathered, CONFIG)
    read = load_classifier(folder / "a.classifier.safetensors")
    assert window.weights.tobytes() == read.weights.tobytes()
    assert window.bias.tobytes() == read.bias.tobytes()
    assert (window.temperature, window.calibrated) == (read.temperature, True)
    done = run(apply_classifier(applying(folder)))
    for one in done.slides:
        features = next(s for s in sets if s.grid.slide["name"] == one.slide)
        assert one.areas == tuple(classify_slide(window, features).areas())


def test_a_cohort_is_classified_into_a_table_and_files(folder: Path) -> None:
    formats = ("csv", "geojson", "regions", "ome-tiff")
    events: list[object] = []
    done = run(apply_classifier(applying(folder, write=formats)), events.append)
    assert [one.slide for one in done.slides] == ["slide s1", "slide s2", "slide s3"]
    assert done.failed == ()
    assert len(done.files) == 12
    assert all(one.is_file() for one in done.files)
    rows = rows_of(folder / "out" / "areas.csv")
    assert len(rows) == 4 * (3 + 1)
    # Independently: patches times their area, from the table of patches.
    for one in done.slides:
        patches = rows_of(folder / "out" / f"{one.slide}.classes.csv")
        for area in one.areas:
            own = [row for row in patches if row["class"] == area.label]
            assert len(own) == area.patches
            assert area.mm2 == pytest.approx(len(own) * (100 * 0.5 / 1000) ** 2)
    accuracy = np.mean(
        [
            row["class"] == ("tumour", "stroma", "fat")[true]
            for row, true in zip(
                rows_of(folder / "out" / "slide s3.classes.csv"),
                true_classes(make_features("s3").grid),
                strict=True,
            )
        ]
    )
    assert accuracy > 0.8  # of a slide without labels; averages blur the borders
    last = [e for e in events if isinstance(e, Progress) and e.stage == "Classifying"]
    assert (last[-1].done, last[-1].total, last[-1].unit) == (540, 540, "patches")
    assert last[-1].rate
    summary = json.loads((folder / "out" / "areas.json").read_text(encoding="utf-8"))
    used = summary["classifier"]["provenance"]["labels"]
    assert used["slides"] == {"s1": "s1", "s2": "s2"}
    assert used["authors"] == {"ada": 28}


def test_a_run_says_how_it_is_resumed(folder: Path) -> None:
    run(apply_classifier(applying(folder)))
    out = folder / "out"
    assert verb_of_run(out) == "classify patches"
    line = resume_command(out)
    assert line.startswith("napari-mcm classify patches --config ")


def test_finished_slides_are_kept_and_replaced_ones_computed_again(
    folder: Path,
) -> None:
    first = run(apply_classifier(applying(folder)))
    again = run(apply_classifier(applying(folder)))
    assert (first.resumed, again.resumed) == (0, 3)
    assert again.slides == first.slides
    path = folder / "features" / "s2.features.zarr"
    shutil.rmtree(path)
    save_features(make_features("s2", noise=1.0, seed=5), path)
    changed = run(apply_classifier(applying(folder)))
    assert changed.resumed == 2
    assert [a == b for a, b in zip(first.slides, changed.slides, strict=True)] == [
        True,
        False,
        True,
    ]
    # A format that was not written before needs the slides again, as does a lost file.
    assert run(apply_classifier(applying(folder, write=("csv",)))).resumed == 0
    (folder / "out" / "slide s3.classes.csv").unlink()
    assert run(apply_classifier(applying(folder, write=("csv",)))).resumed == 2
    assert (folder / "out" / "slide s3.classes.csv").is_file()


def test_another_classifier_needs_another_folder(folder: Path) -> None:
    run(apply_classifier(applying(folder)))
    with pytest.raises(RunError, match="another classifier, or of another --unsure"):
        run(apply_classifier(applying(folder, unsure_below=0.9)))


def test_a_cancelled_job_keeps_what_is_finished(folder: Path) -> None:
    job = apply_classifier(applying(folder))
    for event in job:
        if isinstance(event, Progress) and event.done == 180:
            break
    job.close()
    assert not (folder / "out" / "areas.csv").exists()
    events: list[object] = []
    assert run(apply_classifier(applying(folder)), events.append).resumed == 1
    # What an earlier run has done counts as done, but not for the rate.
    first = next(e for e in events if isinstance(e, Progress))
    assert (first.done, first.rate) == (180, None)


AFTER_ONE = """
import json, sys, time
from napari_mcm.core.labelling.applying import apply_classifier
from napari_mcm.core.labelling.config import ClassifyPatchesConfig
config = ClassifyPatchesConfig.model_validate_json(sys.argv[1])
for event in apply_classifier(config):
    if getattr(event, "done", 0) == 180:
        print("now", flush=True)
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_a_job_that_is_killed_resumes_with_the_next_slide(folder: Path) -> None:
    config = applying(folder, write=("csv", "regions"))
    with subprocess.Popen(
        [sys.executable, "-c", AFTER_ONE, config.model_dump_json()],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    resumed = run(apply_classifier(config))
    assert resumed.resumed == 1
    whole = run(apply_classifier(config.model_copy(update={"out": folder / "two"})))
    assert resumed.slides == whole.slides
    for name in ("areas.csv", "slide s1.classes.csv"):
        texts = [(folder / out / name).read_bytes() for out in ("out", "two")]
        assert texts[0] == texts[1]


def test_a_cancel_does_not_wait_for_a_file_that_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_mcm.core.labelling import applying as module

    ended: list[bool] = []

    def endless(path: Path):
        time.sleep(20)
        ended.append(True)

    monkeypatch.setattr(module, "read_any", endless)
    job = apply_classifier(applying(folder))
    for event in job:
        if isinstance(event, Progress) and event.stage == "Classifying":
            break
    next(job)
    job.close()
    assert not ended


def test_a_cancel_removes_the_file_that_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a file wait for each other: only a stop ends it."""
    from napari_mcm.core.labelling import exports

    begun = threading.Event()

    def slow(classes, path: Path, stopped) -> None:
        def rows():
            while True:
                begun.set()
                time.sleep(0.01)
                yield {}

        exports.write_features(path, exports._until(stopped, rows()))

    monkeypatch.setitem(exports._WRITERS, ".geojson", slow)
    job = apply_classifier(applying(folder, write=("geojson",)))
    next(job)
    while not begun.is_set():
        next(job)
    out = folder / "out"
    assert list(out.glob(".part-*"))
    job.close()
    assert list(out.glob(".part-*")) == []
    assert list(out.glob("*.geojson")) == []


def test_damaged_and_double_files_fail_alone(folder: Path) -> None:
    features = folder / "features"
    shutil.copytree(features / "s1.features.zarr", features / "twin.features.zarr")
    next((features / "s2.features.zarr").glob("features/c/*/*")).unlink()
    done = run(apply_classifier(applying(folder)))
    assert [one.slide for one in done.slides] == ["slide s1", "slide s3"]
    damaged, double = done.failed
    assert damaged.startswith("s2.features.zarr: ")
    assert "is of the same slide as s1.features.zarr: its tissue counts once" in double


def test_features_that_are_replaced_while_they_are_read_fail(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_mcm.core.labelling import feature_files

    path = folder / "features" / "s1.features.zarr"

    def read_and_replace(one: Path):
        found = read_features(one)
        shutil.rmtree(one)
        save_features(make_features("s1", seed=9), one)
        return found

    monkeypatch.setattr(feature_files, "read_features", read_and_replace)
    with pytest.raises(FeatureError, match="was replaced while it was read"):
        feature_files.read_any(path)


def test_features_of_another_encoder_are_skipped_in_folders_and_refused_by_name(
    folder: Path,
) -> None:
    other = make_features("s4")
    other = replace(
        other, encoder={**other.encoder, "fingerprint": "f" * 16, "spec": "other"}
    )
    save_features(other, folder / "features" / "s4.features.zarr")
    notes: list[object] = []
    done = run(apply_classifier(applying(folder)), notes.append)
    assert len(done.slides) == 3
    assert done.failed == ()
    text = "s4.features.zarr: made with another encoder, skipped"
    assert text in [one.text for one in notes if isinstance(one, Note)]
    named = applying(folder, "s1.features.zarr", "s4.features.zarr")
    done = run(apply_classifier(named.model_copy(update={"out": folder / "two"})))
    (line,) = done.failed
    assert "features of another encoder (other" in line
    assert len(done.slides) == 1
    # One folder for each encoder, as an extraction with several makes them.
    parts = folder / "parts"
    for name, encoder in (("s1", "one"), ("s4", "two")):
        path = folder / "features" / f"{name}.features.zarr"
        shutil.copytree(path, parts / encoder / path.name)
    config = applying(folder).model_copy(
        update={"features": (parts,), "out": folder / "four"}
    )
    assert [one.slide for one in run(apply_classifier(config)).slides] == ["slide s1"]
    only = applying(folder, "s4.features.zarr")
    with pytest.raises(LabelError, match="no feature file could be used.*another enc"):
        run(apply_classifier(only.model_copy(update={"out": folder / "three"})))


def test_a_file_of_another_tool_is_classified_with_a_warning(folder: Path) -> None:
    own = run(apply_classifier(applying(folder, "s3.features.zarr")))
    features = read_features(folder / "features" / "s3.features.zarr")
    write_foreign(features, folder / "features" / "s3.h5", "trident")
    foreign = applying(folder, "s3.h5").model_copy(update={"out": folder / "two"})
    notes: list[object] = []
    done = run(apply_classifier(foreign), notes.append)
    assert done.total == own.total
    (note,) = [one.text for one in notes if isinstance(one, Note)]
    assert note.startswith("1 files do not state their encoder")


def test_labels_that_cannot_be_used_are_one_clear_line(folder: Path) -> None:
    labels = read_labels(folder / "a.labels.json")
    far = [PatchLabel("s1", 90_000, 0, 100, 100, "fat")]
    far.append(PatchLabel("elsewhere", 0, 0, 100, 100, "fat"))
    write_labels(folder / "a.labels.json", labels.with_labels(far))
    notes: list[object] = []
    done = run(train_patches(training(folder)), notes.append)
    texts = [one.text for one in notes if isinstance(one, Note)]
    assert texts[0].startswith("1 labels mean no patch with features (outside of the")
    assert texts[1].startswith("1 labels are of slides whose features are not given")
    assert len(done.labelled) == len(labels)
    assert len(read_labels(folder / "a.labels.json")) == len(labels) + 2
    write_labels(folder / "a.labels.json", LabelSet().with_names("a").with_labels(()))
    with pytest.raises(LabelError, match="there are no labels"):
        run(train_patches(training(folder)))
    lost = replace(labels, labels=tuple(far))
    write_labels(folder / "a.labels.json", lost)
    with pytest.raises(LabelError, match="none of the 2 labels can be used"):
        run(train_patches(training(folder)))


def test_one_class_only_is_one_clear_line(folder: Path) -> None:
    labels = read_labels(folder / "a.labels.json").without_class("fat")
    write_labels(folder / "a.labels.json", labels.without_class("stroma"))
    with pytest.raises(LabelError, match=r"1 class \(tumour\), two are needed"):
        run(train_patches(training(folder)))


def test_five_thousand_labels_train_and_keep_their_bits(tmp_path: Path) -> None:
    features = make_features("big", noise=1.0, rows=70, columns=75)
    rows = np.sort(np.random.default_rng(0).choice(5250, 5000, replace=False))
    labels = label_rows(features, rows)
    path = write_labels(tmp_path / "b.labels.json", labels)
    assert read_labels(path) == labels
    gathered = gather_labels(labels, [features], ClassifierConfig())
    assert len(gathered) == 5000
    made = train_on(gathered, ClassifierConfig())
    right = patch_probabilities(made, features).argmax(axis=1)
    assert (right == true_classes(features.grid)).mean() > 0.95


KILLED = """
import os, sys, time
from napari_mcm.core.labelling import files, read_labels, write_labels

def wait(*_):
    print("now", flush=True)
    time.sleep(600)

def halves(labels, whole=files._lines):
    lines = list(whole(labels))
    yield from lines[: len(lines) // 2]
    wait()

path, moment = sys.argv[1:]
labels = read_labels(path)
if moment == "written by half":
    files._lines = halves
else:
    os.fsync = wait
write_labels(path, labels.without([labels.labels[0].place]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("moment", ["written by half", "not renamed"])
def test_a_program_that_is_killed_while_it_saves_loses_nothing(
    moment: str, tmp_path: Path
) -> None:
    labels = label_rows(make_features(), np.arange(180))
    path = write_labels(tmp_path / "b.labels.json", labels)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), moment], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    assert read_labels(path) == labels
    # What it left behind stays while it may be of a program that runs, and then goes.
    (part,) = tmp_path.glob(".part-*")
    write_labels(path, labels)
    assert part.exists()
    os.utime(part, (1, 1))
    write_labels(path, labels)
    assert not part.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files have no numbers")
def test_labels_are_renamed_into_their_place(tmp_path: Path) -> None:
    labels = label_rows(make_features(), np.arange(9))
    path = write_labels(tmp_path / "b.labels.json", labels)
    before = path.stat().st_ino
    write_labels(path, labels)
    assert path.stat().st_ino != before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is damaged"),
        ('{"format": "other"}', "is not a label file"),
        ('{"format": "napari-mcm labels", "version": [9, 0]}', "has version"),
        (
            '{"format": "napari-mcm labels", "version": [1, 0], "labels": [{"x": 1}]}',
            "is damaged",
        ),
        (
            '{"format": "napari-mcm labels", "version": [1, 0], "classes": '
            '[{"name": "a", "color": "red"}]}',
            "is damaged",
        ),
    ],
)
def test_damaged_label_files_are_refused(
    text: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.labels.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabelError, match=reason):
        read_labels(path)


def test_damaged_classifier_files_are_refused(folder: Path) -> None:
    path = folder / "a.classifier.safetensors"
    with pytest.raises(LabelError, match="no such classifier file"):
        load_classifier(folder / "none.safetensors")
    made = load_classifier(path)
    save_classifier(path, replace(made, counts=(1,)))
    with pytest.raises(LabelError, match="weights do not fit"):
        load_classifier(path)
    weights = made.weights.copy()
    weights[0, 0] = np.nan
    save_classifier(path, replace(made, weights=weights))
    with pytest.raises(LabelError, match="weights do not fit"):
        load_classifier(path)
    path.write_bytes(b"\x80\x04garbage")
    with pytest.raises(LabelError, match="is damaged"):
        load_classifier(path)


def test_missing_options_are_named() -> None:
    with pytest.raises(ConfigError, match="--out are needed"):
        run(apply_classifier(ClassifyPatchesConfig()))
    with pytest.raises(ConfigError, match="--out are needed"):
        run(train_patches(TrainPatchesConfig()))
    with pytest.raises(ConfigError, match="--out are needed"):
        run(import_labels(ImportLabelsConfig()))


def test_regions_are_imported_by_the_names_of_the_slides(folder: Path) -> None:
    regions = folder / "regions"
    regions.mkdir()
    ring = [[0, 0], [250, 0], [250, 250], [0, 250], [0, 0]]
    drawn = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "fat"}},
    }
    (regions / "slide s2 regions.geojson").write_text(json.dumps([drawn]))
    before = read_labels(folder / "a.labels.json")
    config = ImportLabelsConfig(
        regions=(regions,),
        features=(folder / "features",),
        out=folder / "a.labels.json",
        author="cy",
    )
    notes: list[object] = []
    done = run(import_labels(config), notes.append)
    # Centres at 50, 150 and 250, of which the last is not inside.
    assert done.counts == {"slide s2": 4}
    found = read_labels(folder / "a.labels.json")
    new = [one for one in found.labels if one.author == "cy"]
    assert sorted((one.x, one.y) for one in new) == [
        (0, 0),
        (0, 100),
        (100, 0),
        (100, 100),
    ]
    assert len(found) == len(before) + 3  # one was labelled before
    assert found.slide_name("s2") == "slide s2"
    left = [one.text for one in notes if isinstance(one, Note)]
    assert "slide s1 has no regions and is left out" in left
