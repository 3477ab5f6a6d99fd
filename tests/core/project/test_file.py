"""Project files: whole at any moment, checked when read, and kept by other versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from napari_mcm.core.errors import McmError, ProjectError
from napari_mcm.core.project import (
    Project,
    ProjectSlide,
    ResultRow,
    SavedFeatures,
    SavedQuery,
    SavedView,
    SlideState,
    as_tsv,
    backup_of,
    find_moved,
    keep_backup,
    locate,
    place_beside,
    read_project,
    stamp_of,
    write_project,
    write_results,
)
from napari_mcm.core.project import file as project_file
from napari_mcm.core.slides import open_slide
from tests.core.conftest import stained_image, write_pyramid

ROW = ResultRow(
    slide="a, b",
    query="2 similar, 1 dissimilar",
    encoder="lite0",
    context="3 × 3",
    threshold=0.625,
    area_mm2=3.4125,
    tissue_percent=26.67,
    patches=84,
    fingerprint="0123",
    added="2026-11-29T14:00:00Z",
)


def make_slide(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_pyramid(path, stained_image(300, 260, seed))


def entry_of(path: Path, project: Path) -> ProjectSlide:
    with open_slide(path) as slide:
        return ProjectSlide(
            **place_beside(path, project),
            name=slide.name,
            fingerprint=slide.fingerprint,
            file_size=path.stat().st_size,
        )


def full_project(slide: ProjectSlide) -> Project:
    state = SlideState(
        features={"first": SavedFeatures(path="f/a.features.zarr", encoder="e")},
        query=SavedQuery(slide=slide.fingerprint, like=((10.5, 20.0),)),
        threshold=0.5,
        view=SavedView(centre=(100.0, 50.0), zoom=0.25),
    )
    made = Project.new().with_slide(slide.model_copy(update={"state": state}))
    return made.model_copy(update={"results": (ROW,), "current": slide.fingerprint})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A project with one slide beside it, in a folder that can be moved."""
    path = tmp_path / "study" / "a.mcm.json"
    slide = make_slide(tmp_path / "study" / "slides" / "s.tif")
    write_project(path, full_project(entry_of(slide, path)))
    return path


def test_what_is_written_is_read(saved: Path) -> None:
    project = read_project(saved)
    assert project == full_project(entry_of(saved.parent / "slides" / "s.tif", saved))
    assert project.slides[0].path == "slides/s.tif"
    # Nothing that is as by default makes the file larger.
    assert "labels" not in saved.read_text() and saved.stat().st_size < 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_hundred_kills_while_saving_lose_nothing(tmp_path: Path) -> None:
    """Each is followed by one more start; at the end the folder moves, and opens."""
    path = tmp_path / "study" / "a.mcm.json"
    slide = entry_of(make_slide(tmp_path / "study" / "s.tif"), path)
    # Large enough that a kill falls into the middle of a write.
    project = full_project(slide)
    project = project.model_copy(
        update={"slides": project.slides * 300, "results": (ROW,) * 300, "current": "0"}
    )
    write_project(path, project)
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.core.project.killed_saver",
            str(path),
            "100",
            "7",
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert ended.returncode == 0, ended.stderr
    ends = json.loads(ended.stdout)
    assert len(ends) == 100
    for end in ends:
        # The last save that was told is there, or the one that was begun after it.
        assert end["left"] - end["told"] in (0, 1), end
        assert (end["slides"], end["rows"], end["damaged"]) == (300, 300, 0)
    moved = path.parent.rename(tmp_path / "moved") / path.name
    found = read_project(moved)
    assert locate(found.slides[0], moved) == tmp_path / "moved" / "s.tif"
    assert int(found.current) == ends[-1]["left"]


def test_remains_of_killed_programs_are_removed(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (saved.parent / f".part-{n}.mcm.json" for n in ("old", "new"))
    for part in (old, new):
        part.write_text("{")
    os.utime(old, (0, 0))
    write_project(saved, Project.new())
    assert not old.exists() and new.exists()


def test_a_write_that_fails_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(McmError, match="No space left"):
        write_project(saved, Project.new())
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob(".part*"))


def test_what_another_program_wrote_is_not_overwritten(saved: Path) -> None:
    stamp = stamp_of(saved)
    theirs = write_project(saved, Project.new())
    with pytest.raises(ProjectError, match="changed by another program"):
        write_project(saved, full_project(ProjectSlide()), stamp)
    assert read_project(saved) == Project.new()
    write_project(saved, full_project(ProjectSlide()), theirs)
    # A file that was deleted is written again.
    saved.unlink()
    write_project(saved, Project.new(), theirs)


def test_a_later_minor_version_keeps_its_fields(saved: Path) -> None:
    content = json.loads(saved.read_text())
    content |= {"version": "1.7", "new": {"a": [1, 2]}}
    content["slides"][0] |= {"new": "b"}
    content["slides"][0]["state"]["query"] |= {"new": "c"}
    content["results"][0] |= {"new": 4}
    saved.write_text(json.dumps(content))
    project = read_project(saved)
    slide = project.slides[0].model_copy(update={"name": "renamed"})
    write_project(saved, project.with_slide(slide))
    again = json.loads(saved.read_text())
    content["slides"][0]["name"] = "renamed"
    assert again == content


DAMAGED: dict[str, tuple[Any, str]] = {
    "cut": ('{"format": "napari-mcm project", "ver', "is damaged: it is not JSON"),
    "empty": ("", "is damaged: it is not JSON"),
    "other": ('{"format": "napari-mcm query"}', "is no project"),
    "list": ("[]", "is no project"),
    "newer": ({"version": "2.0"}, r"newer version \(format 2.0.*Update napari-mcm"),
    "no version": ({"version": None}, "is damaged: version"),
    "type": ({"slides": [{"name": 3}]}, "is damaged: slides.0.name: .*string"),
    "infinite": ({"results": [{"threshold": 1e999}]}, "is damaged: results.0"),
    "outside": ({"slides": [{"fingerprint": "../../x"}]}, "slides.0.fingerprint"),
    "half a character": ({"extra": "\ud800"}, "is damaged"),
    "deep": ("[" * 100_000, "is damaged: it is not JSON"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_clear_line(saved: Path, name: str) -> None:
    content, message = DAMAGED[name]
    if isinstance(content, dict):
        content = json.dumps(json.loads(saved.read_text()) | content)
    saved.write_text(content)
    with pytest.raises(ProjectError, match=message) as caught:
        read_project(saved)
    assert str(caught.value).startswith(f"{saved}: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_damaged_file_names_its_copy(saved: Path) -> None:
    project = read_project(saved)
    keep_backup(saved)
    saved.write_text("{")
    with pytest.raises(ProjectError, match=r"Open a\.backup\.mcm\.json"):
        read_project(saved)
    assert read_project(backup_of(saved)) == project
    # Copies of copies are not made.
    assert backup_of(backup_of(saved)) == backup_of(saved)


def test_a_huge_or_missing_file_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_file, "MOST_BYTES", 100)
    with pytest.raises(ProjectError, match="is larger than"):
        read_project(saved)
    with pytest.raises(ProjectError, match=r"cannot be read \(No such file"):
        read_project(saved.with_name("none.mcm.json"))


def test_a_moved_folder_is_found_by_relative_paths(saved: Path, tmp_path: Path) -> None:
    moved = saved.parent.rename(tmp_path / "elsewhere") / saved.name
    (slide,) = read_project(moved).slides
    assert locate(slide, moved) == tmp_path / "elsewhere" / "slides" / "s.tif"


def test_a_project_that_moved_alone_finds_its_slides(
    saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    moved = saved.rename(tmp_path / "far" / "away" / saved.name)
    (slide,) = read_project(moved).slides
    assert locate(slide, moved) == saved.parent / "slides" / "s.tif"


def test_another_slide_of_the_same_name_is_not_taken(
    saved: Path, tmp_path: Path
) -> None:
    (slide,) = read_project(saved).slides
    right = saved.parent / "slides" / "s.tif"
    right.rename(saved.parent / "kept.tif")
    make_slide(right, seed=5)
    assert locate(slide, saved) is None
    found = find_moved([slide], [saved.parent])
    assert found.found == {slide.fingerprint: saved.parent / "kept.tif"}


def test_moved_slides_are_searched_within_bounds(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_mcm.core.project import paths as module

    (slide,) = read_project(saved).slides
    deep = tmp_path / "archive" / "1" / "2" / "3"
    deep.mkdir(parents=True)
    (saved.parent / "slides" / "s.tif").rename(deep / "s.tif")
    assert locate(slide, saved) is None
    # A folder that names itself is no endless loop.
    (tmp_path / "archive" / "loop").symlink_to(tmp_path / "archive")
    search = find_moved([slide], [tmp_path / "archive", tmp_path / "no such folder"])
    assert search.found == {slide.fingerprint: deep / "s.tif"} and search.complete
    monkeypatch.setattr(module, "DEEPEST", 2)
    assert not find_moved([slide], [tmp_path / "archive"]).found
    monkeypatch.setattr(module, "DEEPEST", 4)
    monkeypatch.setattr(module, "MOST_ENTRIES", 2)
    search = find_moved([slide], [tmp_path / "archive"])
    assert not search.found and not search.complete


def test_results_for_spreadsheets(tmp_path: Path) -> None:
    formula = ROW.model_copy(update={"slide": "=1+1", "tissue_percent": None})
    text = write_results(tmp_path / "r.csv", [ROW, formula]).read_text("utf-8")
    assert text.splitlines() == [
        "slide,area_mm2,tissue_percent,threshold,query,encoder,context,patches",
        '"a, b",3.4125,26.67,0.625,"2 similar, 1 dissimilar",lite0,3 × 3,84',
        '\'=1+1,3.4125,,0.625,"2 similar, 1 dissimilar",lite0,3 × 3,84',
    ]
    first = as_tsv([ROW]).splitlines()
    assert first[0].split("\t") == [
        *("Slide", "mm²", "% of tissue", "Threshold", "Query", "Encoder"),
        *("Context", "Patches"),
    ]
    assert first[1].split("\t")[1:4] == ["3.4125", "26.67", "0.625"]
