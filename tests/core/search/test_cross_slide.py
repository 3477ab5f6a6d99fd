"""Searching the slides of a folder, against the same in plain numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.runtime.jobs import Note, Progress, run
from napari_mcm.core.search import CrossSlideConfig, SlideMatch, search_slides
from tests.core.features.made_features import SIDE, made_grid

ENCODER, OTHER = "e" * 16, "f" * 16
DIM = 6
SHAPES = {"a": (10, 8, 0.5), "b": (3, 5, 0.25), "c": (12, 12, 1.0), "d": (1, 2, 0.5)}
"""Rows, columns and microns per pixel of each slide."""


def features_of(name: str, encoder: str = ENCODER, dim: int = DIM) -> FeatureSet:
    """Random features of a slide, the first patch without any."""
    rows, columns, mpp = SHAPES[name]
    grid = made_grid(rows, columns, fingerprint=name * 16)
    grid = replace(grid, mpp=mpp, slide=grid.slide | {"name": name, "mpp": [mpp, mpp]})
    rng = np.random.default_rng(ord(name))
    values = rng.normal(size=(len(grid), dim)).astype(np.float32)
    status = np.zeros(len(grid), np.uint8)
    values[0], status[0] = np.nan, 1
    described = {"spec": "none", "fingerprint": encoder, "dim": dim}
    return FeatureSet(values, grid, status, described | {"precision": "float32"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in SHAPES:
        save_features(features_of(name), tmp_path / f"{name}.features.zarr")
    return tmp_path


@pytest.fixture
def directions() -> NDArray[np.float32]:
    vectors = np.random.default_rng(1).normal(size=(2, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def expected(
    name: str, directions: NDArray[np.float32], above: float, top: int
) -> tuple[float, float, int]:
    """Mean of the best, area in mm² and number of patches, in float64."""
    features = features_of(name).features.astype(np.float64)
    unit = features / np.sqrt((features**2).sum(axis=1, keepdims=True))
    cosine = (unit @ directions.T.astype(np.float64)).max(axis=1)
    known = np.sort(cosine[~np.isnan(cosine)])[::-1]
    patch_mm2 = (SIDE * SHAPES[name][2] / 1000) ** 2
    return known[:top].mean(), (known >= above).sum() * patch_mm2, len(features)


@pytest.mark.parametrize("top", [1, 16, 1000])
@pytest.mark.parametrize("above", [-1.0, 0.2, 0.7])
def test_each_slide_is_summarised_as_numpy_does(
    folder: Path, directions: NDArray[np.float32], above: float, top: int
) -> None:
    config = CrossSlideConfig(features=folder, above=above, top=top)
    result = run(search_slides(config, ENCODER, directions))
    assert result.skipped == ()
    wanted = {name: expected(name, directions, above, top) for name in SHAPES}
    order = sorted(SHAPES, key=lambda name: -wanted[name][0])
    assert [match.name for match in result.matches] == order
    for match in result.matches:
        mean, area, patches = wanted[match.name]
        assert match.mean == pytest.approx(mean, abs=1e-6)
        assert match.area_mm2 == pytest.approx(area, rel=1e-12)
        assert match.patches == patches
        assert match.fingerprint == match.name * 16
        assert match.features == folder / f"{match.name}.features.zarr"


def test_files_that_cannot_be_searched_are_named_and_skipped(
    folder: Path, directions: NDArray[np.float32]
) -> None:
    (folder / "empty.features.zarr").mkdir()
    chunk = max(
        (f for f in (folder / "b.features.zarr").rglob("*") if f.is_file()),
        key=lambda file: file.stat().st_size,
    )
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"\0" * 9)
    save_features(features_of("a", OTHER), folder / "other.features.zarr")
    save_features(features_of("a", dim=4), folder / "short.features.zarr")
    none = features_of("d")
    none = replace(none, status=none.status + 1, features=none.features * np.nan)
    save_features(none, folder / "none.features.zarr")
    notes: list[str] = []
    result = run(
        search_slides(CrossSlideConfig(features=folder), ENCODER, directions),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert {match.name for match in result.matches} == {"a", "c", "d"}
    assert tuple(notes) == result.skipped
    reasons = dict(note.split(".features.zarr: ", 1) for note in notes)
    assert list(reasons) == ["b", "empty", "none", "other", "short"]
    assert reasons["other"] == "made with another encoder (none), skipped"
    assert reasons["none"] == "has no features"
    assert "length 4" in reasons["short"]
    assert all(reasons.values())


def test_features_without_a_fingerprint_are_never_searched(
    folder: Path, directions: NDArray[np.float32]
) -> None:
    config = CrossSlideConfig(features=folder)
    result = run(search_slides(config, "", directions))
    assert not result.matches and len(result.skipped) == len(SHAPES)


def test_a_folder_without_features_has_no_matches(
    tmp_path: Path, directions: NDArray[np.float32]
) -> None:
    config = CrossSlideConfig(features=tmp_path)
    assert run(search_slides(config, ENCODER, directions)).matches == ()


def test_a_search_reports_each_slide_and_can_be_cancelled(
    folder: Path, directions: NDArray[np.float32]
) -> None:
    config = CrossSlideConfig(features=folder)
    stages: list[int] = []

    def heard(event: object) -> None:
        if isinstance(event, Progress) and event.total is not None:
            assert event.total == len(SHAPES) and event.unit == "slides"
            stages.append(event.done)

    run(search_slides(config, ENCODER, directions), heard)
    # While a slide takes long, its event is repeated, so that a cancel is heard.
    assert sorted(stages) == stages and set(stages) == {0, 1, 2, 3}
    (folder / "a.features.zarr" / "zarr.json").unlink()
    job = search_slides(config, ENCODER, directions)
    events = [next(job)]
    while not isinstance(events[-1], Note):
        events.append(next(job))
    job.close()
    # The first file is named; nothing is reported of the others.
    assert events[-1].text.startswith("a.features.zarr: ")
    assert list(job) == []


def test_options_and_matches_cannot_be_changed(folder: Path) -> None:
    match = SlideMatch("a", "x", folder, 0.9, 1.0, 3)
    with pytest.raises(AttributeError):
        match.best = 1.0  # type: ignore[misc]
    for wrong in ({"above": 1.1}, {"above": float("nan")}, {"top": 0}):
        with pytest.raises(ValidationError):
            CrossSlideConfig(features=folder, **wrong)
