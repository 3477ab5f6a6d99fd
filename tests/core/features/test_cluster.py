"""Slides handed to worker processes: the same files, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features import ExtractConfig, extract_slides, read_features
from napari_mcm.core.features.cluster import extract_anywhere, own_device
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.tissue import TissueConfig
from tests.core.conftest import stained_image

distributed = pytest.importorskip("distributed", reason="distributed is not installed")


@pytest.fixture
def slides(write_slide):
    names = "abcd"
    return [
        write_slide(stained_image(600, 500, seed), f"{name}.ome.tif")
        for seed, name in enumerate(names)
    ]


def config(out, slides, **given):
    settings = {
        "encoder": "random:test_resnet",
        "grid": GridConfig(patch_size=32),
        "tissue": TissueConfig(tissue_mpp=4),
        "compute": ComputeConfig(device="cpu", precision="float32", threads=1),
        "block": 16,
    }
    return ExtractConfig(slides=tuple(slides), out=out, **settings | given)


def assert_same_files(here, there):
    assert [f.name for f in here] == [f.name for f in there]
    for one, other in zip(here, there, strict=True):
        mine, theirs = read_features(one), read_features(other)
        np.testing.assert_array_equal(mine.features, theirs.features)
        np.testing.assert_array_equal(mine.status, theirs.status)
        assert mine.grid.fingerprint == theirs.grid.fingerprint


@pytest.mark.timeout(120)
def test_a_local_cluster_makes_the_same_files(slides, tmp_path, write_slide):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"II*\0" + bytes(100))
    alone = run(extract_slides(config(tmp_path / "alone", slides)))
    events = []
    together = run(
        extract_anywhere(config(tmp_path / "many", [*slides, broken], local_cluster=2)),
        events.append,
    )
    assert together.slides == alone.slides == 4
    assert together.patches == alone.patches
    assert_same_files(alone.files, together.files)
    assert len(together.failed) == 1 and "broken.svs" in together.failed[0]
    progress = [e for e in events if isinstance(e, Progress) and e.unit == "slides"]
    assert progress[-1].done == progress[-1].total == 4


def find_workers(scheduler: str) -> list[int]:
    with distributed.Client(scheduler) as client:
        return list(client.run(os.getpid).values())


@pytest.fixture
def scheduler():
    """A cluster that was there before: a scheduler and two workers that come back."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.timeout(120)
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_slides_of_a_killed_worker_go_to_others(slides, tmp_path, scheduler):
    alone = run(extract_slides(config(tmp_path / "alone", slides)))
    victims = find_workers(scheduler)
    asked = config(tmp_path / "many", slides, scheduler=scheduler)

    def kill():
        time.sleep(1.0)
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    together = run(extract_anywhere(asked))
    killer.join()
    assert together.failed == ()
    assert_same_files(alone.files, together.files)


@pytest.mark.timeout(120)
def test_a_cancel_stops_the_workers(slides, tmp_path, scheduler):
    job = extract_anywhere(config(tmp_path / "many", slides, scheduler=scheduler))
    for event in job:
        if isinstance(event, Progress) and event.unit == "slides":
            break
    job.close()
    with distributed.Client(scheduler) as client:
        until = time.monotonic() + 60
        while any(client.processing().values()):
            assert time.monotonic() < until, "workers go on"
            time.sleep(0.05)
    run(extract_anywhere(config(tmp_path / "many", slides, scheduler=scheduler)))


def test_a_scheduler_that_is_not_there_is_one_line(slides, tmp_path):
    asked = config(tmp_path / "out", slides, scheduler="nowhere")
    with pytest.raises(ConfigError, match="cannot be reached"):
        run(extract_anywhere(asked))


def test_without_the_library_the_extra_is_named(slides, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"napari-mcm\[cluster\]"):
        run(extract_anywhere(config(tmp_path / "out", slides, local_cluster=2)))


def test_the_command_line_knows_the_local_cluster(slides, tmp_path):
    words = ["extract", str(slides[0]), "--encoder", "random:test_resnet"]
    words += ["--out", str(tmp_path / "out"), "--local-cluster", "1", "--json"]
    words += ["--patch-size", "64", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "napari_mcm.cli", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "worker", "devices", "given"),
    [
        ("auto", 0, 2, "cuda:0"),
        ("auto", 3, 2, "cuda:1"),
        ("cuda", 1, 2, "cuda:1"),
        ("cuda:0", 1, 2, "cuda:0"),
        ("cpu", 1, 2, "cpu"),
        ("auto", 1, 1, "auto"),
        ("auto", "tcp://elsewhere:4711", 2, "auto"),
    ],
)
def test_workers_of_one_machine_share_its_gpus(asked, worker, devices, given):
    compute = ComputeConfig(device=asked)
    assert own_device(compute, worker, devices).device == given
