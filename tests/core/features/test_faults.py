"""Kills, power cuts, full disks and lost slides: the next run ends as if undisturbed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zarr
from zarr.storage import _local

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.errors import FeatureError, OutputError, SlideError
from napari_mcm.core.features import (
    ExtractConfig,
    extract,
    extract_slides,
    read_features,
)
from napari_mcm.core.features.lock_owner import read_lock_file
from napari_mcm.core.features.write_lock import WriteLock, write_lock_path
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, find_tissue
from tests.core.conftest import stained_image
from tests.lengths import length

ENCODER = "random:test_resnet"
COMPUTE = ComputeConfig(device="cpu", precision="float32", threads=1)
BLOCK = 16


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(ENCODER, COMPUTE)


def config(out, slides, **given):
    settings = {"encoder": ENCODER, "grid": GridConfig(patch_size=32)}
    settings |= {"tissue": TissueConfig(tissue_mpp=4), "compute": COMPUTE}
    return ExtractConfig(slides=tuple(slides), out=out, block=BLOCK, **settings | given)


def content(path: Path) -> dict[str, Any]:
    """Give all that a feature file says, but for when it was finished."""
    group = zarr.open_group(path, mode="r")
    attributes = dict(group.attrs)
    provenance = {
        name: value
        for name, value in attributes["provenance"].items()
        if name not in ("finished", "seconds")
    }
    files = {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.relative_to(path) != Path("zarr.json")
    }
    return {**files, "attributes": {**attributes, "provenance": provenance}}


def assert_undisturbed(path: Path, reference: Path) -> None:
    mine, theirs = content(path), content(reference)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name] == theirs[name], name
    read_features(path)


# Writes that stop ------------------------------------------------------------


class PowerCut(BaseException):
    """Nothing that comes after it is done any more."""


class Disk:
    """Counts what zarr writes, and stops at one of the writes."""

    def __init__(self, monkeypatch, last, error):
        self.writes, self.last, self.error = 0, last, error
        self.whole = _local._put
        monkeypatch.setattr(_local, "_put", self.put)

    def put(self, path, value, exclusive=False):
        self.writes += 1
        if self.last is None or self.writes <= self.last:
            return self.whole(path, value, exclusive)
        # What was begun stays there, half written.
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.with_suffix(".0123456789abcdef.partial")
        torn.write_bytes(bytes(value.as_buffer_like())[: len(value) // 2])
        raise self.error


@pytest.fixture
def scene(write_slide, encoder, tmp_path):
    """A slide with three blocks of patches, and its features."""
    with open_slide(write_slide(stained_image(400, 360))) as slide:
        grid = make_grid(slide, find_tissue(slide), GridConfig(patch_size=56))
        assert 2 * BLOCK < len(grid) <= 5 * BLOCK
        reference = tmp_path / "reference.features.zarr"
        run(extract(slide, grid, encoder, reference, block=BLOCK))
        yield slide, grid, reference


def count_writes(monkeypatch, scene, encoder, path):
    slide, grid, _ = scene
    with monkeypatch.context() as patch:
        disk = Disk(patch, None, None)
        run(extract(slide, grid, encoder, path, block=BLOCK))
        return disk.writes


@pytest.mark.parametrize("kind", ["power cut", "full disk"])
def test_writes_may_stop_anywhere(monkeypatch, scene, encoder, tmp_path, kind):
    slide, grid, reference = scene
    writes = count_writes(monkeypatch, scene, encoder, tmp_path / "counted")
    assert writes > 20
    for last in range(writes):
        path = tmp_path / f"{last}.features.zarr"
        with monkeypatch.context() as patch:
            if kind == "power cut":
                Disk(patch, last, PowerCut())
                patch.setattr(WriteLock, "release", lambda self: self._ended.set())
                expected: type[BaseException] = PowerCut
            else:
                Disk(patch, last, OSError(errno.ENOSPC, "No space left on device"))
                expected = OutputError
            with pytest.raises(expected) as error:
                run(extract(slide, grid, encoder, path, block=BLOCK))
        if kind == "full disk":
            assert "No space left on device" in str(error.value)
            assert "\n" not in str(error.value)
        else:
            dead = read_lock_file(write_lock_path(path)).owner
            write_lock_path(path).write_bytes(
                dataclasses.replace(dead, born="1").dump()
            )
        with pytest.raises(FeatureError):
            read_features(path)
        for torn in path.rglob("*.partial"):
            torn.rename(torn)  # it is there, and does no harm
        run(extract(slide, grid, encoder, path, block=BLOCK))
        for torn in path.rglob("*.partial"):
            torn.unlink()
        assert_undisturbed(path, reference)
        assert not write_lock_path(path).exists()


def test_a_block_is_on_the_disk_before_its_status_says_so(
    monkeypatch, scene, encoder, tmp_path
):
    slide, grid, _ = scene
    path, events, whole = tmp_path / "a.features.zarr", [], _local._put

    def put(file, *args, **kwargs):
        events.append(("written", file.relative_to(path).as_posix()))
        return whole(file, *args, **kwargs)

    def sync(descriptor):
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name.is_relative_to(path):
            events.append(("on disk", name.relative_to(path).as_posix()))

    monkeypatch.setattr(_local, "_put", put)
    monkeypatch.setattr(os, "fsync", sync)
    run(extract(slide, grid, encoder, path, block=BLOCK))
    for block in range(-(-len(grid) // BLOCK)):
        told = events.index(("written", f"status/c/{block}"))
        assert ("on disk", f"features/c/{block}/0") in events[:told]
        assert ("on disk", f"blur/c/{block}") in events[:told]
    assert events[-1] == ("on disk", "zarr.json")


def test_a_full_disk_stops_the_run_and_not_slide_after_slide(
    monkeypatch, write_slide, encoder, tmp_path
):
    names = ("a.ome.tif", "b.ome.tif", "c.ome.tif")
    slides = [write_slide(stained_image(400, 360), name) for name in names]
    asked = config(tmp_path / "out", slides)
    with monkeypatch.context() as patch:
        Disk(patch, 30, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OutputError, match="No space left on device"):
            run(extract_slides(asked, [encoder]))
    result = run(extract_slides(asked, [encoder]))
    assert result.slides == 3 and not result.failed


# Slides that go --------------------------------------------------------------


def test_a_slide_that_vanishes_is_not_taken_for_a_damaged_one(
    scene, encoder, tmp_path, monkeypatch
):
    """A file server that goes away: every read fails, and the file is not there."""
    slide, grid, reference = scene
    path, hidden = tmp_path / "a.features.zarr", tmp_path / "hidden"
    source = slide.path
    with open_slide(source) as slide:
        job = extract(slide, grid, encoder, path, block=BLOCK, workers=0)
        for event in job:
            if isinstance(event, Progress) and event.done >= BLOCK:
                break
        source.rename(hidden)
        _forget_pixels(slide, monkeypatch)
        with pytest.raises(SlideError, match="No such file"):
            run(job)
    hidden.rename(source)
    monkeypatch.undo()
    with open_slide(source) as slide:
        run(extract(slide, grid, encoder, path, block=BLOCK))
    assert_undisturbed(path, reference)


def test_a_slide_that_is_replaced_meanwhile_is_refused(
    scene, encoder, tmp_path, monkeypatch, write_slide
):
    slide, grid, _ = scene
    with open_slide(slide.path) as slide:
        job = extract(slide, grid, encoder, tmp_path / "a", block=BLOCK, workers=0)
        next(job)
        other = write_slide(stained_image(500, 360, 3), "other.ome.tif")
        other.replace(slide.path)
        _forget_pixels(slide, monkeypatch)
        with pytest.raises(SlideError, match="has changed since it was opened"):
            run(job)


def _forget_pixels(slide, monkeypatch):
    from napari_mcm.core.errors import TileError
    from napari_mcm.core.slides import Slide

    def fail(self, corners, *args):
        yield from (TileError("cannot be read", self.path) for _ in corners)

    monkeypatch.setattr(Slide, "read_many", fail)


# Several at one folder --------------------------------------------------------


def test_a_slide_that_another_extracts_comes_last(write_slide, encoder, tmp_path):
    slides = [
        write_slide(stained_image(400, 360), f"{n}.ome.tif") for n in ("a", "b", "c")
    ]
    asked = config(tmp_path, slides)
    with open_slide(slides[0]) as slide:
        held = WriteLock.take(tmp_path / f"{slide.name}.features.zarr")
    stages: list[str] = []
    finished: list[int] = []

    def listen(event):
        if isinstance(event, Progress):
            stages.append(event.stage)
        done = len(list(tmp_path.glob("*.features.zarr")))
        if done == 2 and any("waiting" in stage for stage in stages):
            finished.append(done)
            held.release()

    result = run(extract_slides(asked, [encoder]), listen)
    assert finished and result.slides == 3 and not result.failed
    assert f"is being written by process {os.getpid()}" in " ".join(stages)
    assert not list(tmp_path.glob(".*.lease*"))


def test_waiting_for_another_can_be_cancelled(write_slide, encoder, tmp_path):
    path = write_slide(stained_image(400, 360), "a.ome.tif")
    with open_slide(path) as slide:
        file = tmp_path / f"{slide.name}.features.zarr"
    with WriteLock.take(file):
        job = extract_slides(config(tmp_path, [path]), [encoder])
        for event in job:
            if isinstance(event, Progress) and "waiting" in event.stage:
                break
        job.close()
    assert not file.exists()


def test_complete_features_are_taken_from_a_folder_that_nobody_may_write_to(
    scene, encoder, monkeypatch
):
    slide, grid, reference = scene

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(_local, "_put", refuse)
    events: list[object] = []
    features = run(extract(slide, grid, encoder, reference, block=BLOCK), events.append)
    assert len(features) == len(grid)
    assert any(isinstance(e, Note) and "complete already" in e.text for e in events)


# Processes that are killed ----------------------------------------------------

needs_fork = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="forks processes that have torch"
)


def disturb(tmp_path, asked, processes, kills, every, seed=5):
    """Extract while processes are killed; gives the log's lines, as words."""
    work = tmp_path / "work.json"
    given = {"config": asked.model_dump(mode="json"), "processes": processes}
    work.write_text(json.dumps(given | {"kills": kills, "every": every, "seed": seed}))
    command = [sys.executable, "-m", "tests.core.features.forked", str(work)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, timeout=280, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return [tuple(line.split()) for line in (tmp_path / "log").read_text().splitlines()]


@needs_fork
def test_killed_at_any_moment_it_ends_as_if_undisturbed(write_slide, encoder, tmp_path):
    wanted = length(10, 25)
    path = write_slide(stained_image(length(600, 900), length(500, 800)), "a.ome.tif")
    run(extract_slides(config(tmp_path / "undisturbed", [path]), [encoder]))
    asked = config(tmp_path / "out", [path], batch_size=4)
    log = disturb(tmp_path, asked, processes=1, kills=wanted, every=(0.15, 0.4))
    kills = sum(words[0] == "killed" for words in log)
    assert kills >= 0.8 * wanted, "it was over before it could be killed often enough"
    (file,) = (tmp_path / "out").glob("*.features.zarr")
    (reference,) = (tmp_path / "undisturbed").glob("*.features.zarr")
    assert_undisturbed(file, reference)
    rows = Counter(
        row
        for words in log
        if words[0] == "rows"
        for row in range(int(words[2]), int(words[3]))
    )
    assert min(rows) == 0 and len(rows) == len(read_features(file))
    again = sum(rows.values()) - len(rows)
    print(f"{kills} kills, {len(rows)} patches, {again} computed again")
    assert again <= kills * BLOCK, "more than the block in flight was computed again"


@needs_fork
def test_four_processes_share_slides_while_some_are_killed(
    write_slide, encoder, tmp_path
):
    count, kills = length(8, 20), length(5, 12)
    slides = [
        write_slide(stained_image(420, 360, seed), f"slide{seed:02d}.ome.tif")
        for seed in range(count)
    ]
    run(extract_slides(config(tmp_path / "undisturbed", slides), [encoder]))
    asked = config(tmp_path / "out", slides, batch_size=4)
    log = disturb(tmp_path, asked, processes=4, kills=kills, every=(0.1, 0.4))
    kinds = Counter(words[0] for words in log)
    print(dict(kinds))
    assert kinds["killed"] >= length(2, 5) and kinds["clash"] == 0
    finished = Counter(words[1] for words in log if words[0] == "finished")
    # Killed between the marker and its line in the log, a slide lacks the line.
    assert len(finished) >= count - kinds["killed"] and max(finished.values()) == 1
    references = sorted((tmp_path / "undisturbed").glob("*.features.zarr"))
    files = sorted((tmp_path / "out").glob("*.features.zarr"))
    assert len(files) == len(references) == count
    for file, reference in zip(files, references, strict=True):
        assert_undisturbed(file, reference)
    rows = [
        (w[1], r) for w in log if w[0] == "rows" for r in range(int(w[2]), int(w[3]))
    ]
    assert len(rows) - len(set(rows)) <= kinds["killed"] * BLOCK
    assert not list((tmp_path / "out").glob(".*.lease*"))
