"""Files keep the precision that they were begun in, on machines where `auto` differs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.encoders.compute import AUTO_VARIABLE
from napari_mcm.core.features import ExtractConfig, extract_slides, read_features
from napari_mcm.core.features.cluster import extract_anywhere
from napari_mcm.core.features.format import attributes_of
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.tissue import TissueConfig
from tests.core.conftest import stained_image

AUTO = ComputeConfig(device="cpu", threads=1)
BFLOAT16 = ComputeConfig(device="cpu", threads=1, precision="bfloat16")
FLOAT32 = ComputeConfig(device="cpu", threads=1, precision="float32")


@pytest.fixture
def slides(write_slide):
    return [
        write_slide(stained_image(400, 300, seed), f"{name}.ome.tif")
        for seed, name in enumerate("ab")
    ]


@pytest.fixture
def machine(monkeypatch):
    """Give a function that changes what `auto` is."""
    return lambda precision: monkeypatch.setenv(AUTO_VARIABLE, precision)


def config(out, slides, compute=AUTO, **given):
    settings = {
        "encoder": "random:test_resnet",
        "grid": GridConfig(patch_size=32),
        "tissue": TissueConfig(tissue_mpp=4),
        "block": 16,
    }
    return ExtractConfig(
        slides=tuple(slides), out=out, compute=compute, **settings | given
    )


def precision_of(file):
    return attributes_of(file)["identity"]["precision"]


def broken_off(asked):
    """Extract the first blocks of the first slide."""
    job = extract_slides(asked)
    for event in job:
        extracting = isinstance(event, Progress) and event.stage.startswith("Extr")
        if extracting and event.done >= 20:
            break
    job.close()


def test_an_interrupted_file_is_continued_in_its_own_precision(
    slides, tmp_path, machine
):
    whole = run(extract_slides(config(tmp_path / "whole", slides[:1], BFLOAT16)))
    other = run(extract_slides(config(tmp_path / "other", slides[:1], FLOAT32)))
    machine("bfloat16")
    broken_off(config(tmp_path / "part", slides[:1]))
    machine("float32")
    events = []
    done = run(extract_slides(config(tmp_path / "part", slides[:1])), events.append)
    assert any("resuming at" in e.text for e in events if isinstance(e, Note))
    assert precision_of(done.files[0]) == "bfloat16"
    found, expected, unlike = (
        read_features(result.files[0]).features for result in (done, whole, other)
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, unlike)


def test_a_finished_file_is_taken_whatever_auto_is_here(slides, tmp_path, machine):
    machine("bfloat16")
    run(extract_slides(config(tmp_path / "out", slides[:1])))
    machine("float32")
    events = []
    again = run(extract_slides(config(tmp_path / "out", slides[:1])), events.append)
    assert any("complete already" in e.text for e in events if isinstance(e, Note))
    assert precision_of(again.files[0]) == "bfloat16"


def test_slides_that_are_added_are_comparable_with_those_there(
    slides, tmp_path, machine
):
    machine("bfloat16")
    run(extract_slides(config(tmp_path / "out", slides[:1])))
    machine("float32")
    done = run(extract_slides(config(tmp_path / "out", slides)))
    assert [precision_of(file) for file in done.files] == ["bfloat16"] * 2


def test_another_encoder_does_not_follow(slides, tmp_path, machine):
    machine("bfloat16")
    run(extract_slides(config(tmp_path / "out", slides[:1])))
    machine("float32")
    other = config(tmp_path / "out", slides[1:], encoder="random:test_efficientnet")
    done = run(extract_slides(other))
    assert precision_of(done.files[0]) == "float32"


def test_a_precision_that_is_asked_for_is_not_changed(slides, tmp_path, machine):
    machine("bfloat16")
    run(extract_slides(config(tmp_path / "out", slides[:1])))
    asked = config(tmp_path / "out", slides[:1], FLOAT32)
    failed = run(extract_slides(asked)).failed
    assert "precision bfloat16 there, float32 now" in failed[0]


@pytest.mark.timeout(120)
def test_workers_of_a_cluster_compute_what_one_of_them_chose(
    slides, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed", reason="needs distributed")

    def unlike(dask_worker):
        # Unlike machines: only the first would choose bfloat16 for itself.
        first = dask_worker.name == 0
        os.environ[AUTO_VARIABLE] = "bfloat16" if first else "float32"

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(unlike)
        scheduler = cluster.scheduler_address
        done = run(extract_anywhere(config(tmp_path, slides, scheduler=scheduler)))
    assert not done.failed
    assert len({precision_of(file) for file in done.files}) == 1
