"""The atlas, against plain numpy, and the same twice."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from shapely.geometry import shape

from napari_mcm.core.atlas import (
    AtlasConfig,
    ClusterConfig,
    MapConfig,
    is_installed,
    kmeans_clusters,
    make_atlas,
    points_inside,
    principal_axes,
    reduce_features,
    typical_patches,
    write_atlas,
)
from napari_mcm.core.atlas import neighbours as apart
from napari_mcm.core.atlas.clusters import by_size
from napari_mcm.core.atlas.kept_maps import FOLDER
from napari_mcm.core.errors import ConfigError, FeatureError, McmError
from napari_mcm.core.features.feature_set import (
    FeatureSet,
    NeighbourhoodConfig,
)
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.runtime.jobs import Note, run
from tests.core.features.made_features import made_grid

DIM, KINDS = 12, 4
ALONE = NeighbourhoodConfig(radius=0)
CENTRES = np.random.default_rng(5).normal(size=(KINDS, DIM))
"""Directions of the features of each kind of tissue."""


def kinds_of(name: str, rows: int = 15, columns: int = 12) -> NDArray[np.int64]:
    """The kind of each patch of a slide."""
    return np.random.default_rng(ord(name)).integers(0, KINDS, rows * columns)


def features_of(name: str, encoder: str = "e" * 16) -> FeatureSet:
    """Features of four kinds of tissue; the first patch has none."""
    grid = made_grid(15, 12, fingerprint=name * 16)
    grid = replace(grid, slide=grid.slide | {"name": name})
    noise = np.random.default_rng(ord(name) + 1).normal(size=(len(grid), DIM))
    values = (CENTRES[kinds_of(name)] + 0.05 * noise).astype(np.float32)
    # Other lengths change nothing: patches are compared by direction.
    values *= np.linspace(0.5, 2, len(grid), dtype=np.float32)[:, None]
    status = np.zeros(len(grid), np.uint8)
    values[0], status[0] = np.nan, 1
    described = {"spec": "none", "fingerprint": encoder, "dim": DIM}
    return FeatureSet(values, grid, status, described | {"precision": "float32"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "ab":
        save_features(features_of(name), tmp_path / f"{name}.features.zarr")
    return tmp_path


@pytest.mark.parametrize(("rows", "size"), [(200, 30), (25, 40), (3, 8)])
def test_components_are_those_of_the_singular_values(rows: int, size: int) -> None:
    rng = np.random.default_rng(rows)
    vectors = rng.normal(size=(rows, size)) * np.linspace(3, 1, size)
    vectors = vectors.astype(np.float32)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    kept = min(rows - 1, 5)
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
    found = reduce_features(vectors, 5)
    assert found.shape == (rows, min(rows, 5))
    np.testing.assert_allclose(found[:, :kept], centred @ axes[:kept].T, atol=2e-5)


def test_more_patches_have_the_axes_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    vectors[:, 2] *= 9
    monkeypatch.setattr("napari_mcm.core.atlas.pca._AXES_ROWS", 100)
    first, again = (principal_axes(vectors, 2, seed=1)[1] for _ in range(2))
    assert np.array_equal(first, again)
    assert abs(first[0, 2]) > 0.99


def test_kinds_of_tissue_are_found_and_numbered_by_size() -> None:
    kinds = np.repeat([0, 1, 2], [50, 200, 100])
    vectors = np.random.default_rng(0).normal(size=(350, 3)) * 0.1
    vectors = (vectors + 9 * np.eye(3)[kinds]).astype(np.float32)
    first = kmeans_clusters(vectors, 3, seed=0)
    assert np.array_equal(first, np.array([2, 0, 1])[kinds])
    assert np.array_equal(first, kmeans_clusters(vectors, 3, seed=0))
    # Of fewer patches than clusters, each is one.
    assert sorted(kmeans_clusters(vectors[:3], 8, seed=0)) == [0, 1, 2]


def test_clusters_of_one_size_keep_their_order() -> None:
    assert by_size(np.array([7, 3, 3, 7, 5])).tolist() == [0, 1, 1, 0, 2]


@pytest.mark.parametrize("corners", [3, 8, 40])
def test_the_lasso_takes_what_is_inside(corners: int) -> None:
    rng = np.random.default_rng(corners)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.3, 1.5, corners)
    polygon = np.c_[radius * np.cos(angles), radius * np.sin(angles)]
    points = rng.uniform(-2, 2, (5000, 2)).astype(np.float32)
    points[7] = np.nan
    inside = Outline(np.r_[polygon, polygon[:1]]).contains_points(points)
    assert np.array_equal(points_inside(points, polygon), np.flatnonzero(inside))


def test_a_lasso_of_two_corners_takes_nothing() -> None:
    assert not len(points_inside(np.zeros((3, 2)), np.array([[-1, 0], [1, 0]])))


def test_typical_patches_are_next_to_the_mean_of_their_cluster() -> None:
    reduced = np.array([[0], [1], [2], [10], [11], [30]], np.float32)
    clusters = np.array([0, 0, 0, 1, 1, 0])
    # The mean of cluster 0 is 8.25.
    assert typical_patches(reduced, clusters, 0, 3).tolist() == [2, 1, 0]
    slides = np.array([0, 0, 0, 0, 0, 1])
    # Three of four are of slide 0: of two patches, it gives at most two.
    assert typical_patches(reduced, clusters, 0, 4, slides).tolist() == [2, 1, 0, 5]
    assert not len(typical_patches(reduced, clusters, 9, 3))


def test_an_atlas_of_two_slides_finds_their_tissue(folder: Path) -> None:
    config = AtlasConfig(
        features=(folder,), clusters=ClusterConfig(count=KINDS), neighbourhood=ALONE
    )
    atlas = run(make_atlas(config))
    assert [slide.name for slide in atlas.slides] == ["a", "b"]
    assert len(atlas) == atlas.available == 2 * 179
    kinds = {name: kinds_of(name) for name in "ab"}
    pairs = set()
    for patch in range(len(atlas)):
        slide, row = atlas.slides[atlas.slide[patch]], int(atlas.row[patch])
        assert row != 0
        assert atlas.corner_of(patch) == tuple(slide.grid.xy[row])
        pairs.add((int(kinds[slide.name][row]), int(atlas.clusters[patch])))
    # Each kind is one cluster, on both slides.
    assert len(pairs) == KINDS
    unit = np.concatenate(
        [
            f / np.linalg.norm(f, axis=1, keepdims=True)
            for f in (features_of(name).features[1:] for name in "ab")
        ]
    ).astype(np.float64)
    centred = unit - unit.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(
        (atlas.map.astype(np.float64) ** 2).sum(axis=0), values[:2] ** 2, rtol=1e-4
    )
    again = run(make_atlas(config))
    assert np.array_equal(atlas.map, again.map)
    assert np.array_equal(atlas.clusters, again.clusters)


def test_context_averages_the_features_before(folder: Path) -> None:
    features = (folder / "a.features.zarr",)
    near = NeighbourhoodConfig(radius=1)
    alone, around = (
        run(make_atlas(AtlasConfig(features=features, neighbourhood=n)))
        for n in (ALONE, near)
    )
    # What is averaged varies less.
    assert around.reduced.var(axis=0).sum() < 0.5 * alone.reduced.var(axis=0).sum()


def test_aligned_slides_have_their_tissue_in_common(tmp_path: Path) -> None:
    # Another stain moves all features of a slide.
    stain = 4 * np.random.default_rng(9).normal(size=DIM)
    for name, by in (("a", stain), ("b", -stain)):
        made = features_of(name)
        values = (CENTRES[kinds_of(name)] + by).astype(np.float32)
        values[0] = np.nan
        moved = replace(made, features=values)
        save_features(moved, tmp_path / f"{name}.features.zarr")
    config = AtlasConfig(
        features=(tmp_path,), clusters=ClusterConfig(count=2), neighbourhood=ALONE
    )
    atlas = run(make_atlas(config))
    assert len(np.unique(np.c_[atlas.slide, atlas.clusters], axis=0)) == 2
    changes = {"align_slides": True, "clusters": ClusterConfig(count=KINDS)}
    aligned = run(make_atlas(config.model_copy(update=changes)))
    kinds = np.concatenate([kinds_of(name)[1:] for name in "ab"])
    assert len(np.unique(np.c_[kinds, aligned.clusters], axis=0)) == KINDS
    for number in (0, 1):
        mean = aligned.reduced[aligned.slide == number].mean(axis=0)
        np.testing.assert_allclose(mean, 0, atol=1e-5)


def test_of_too_many_patches_some_are_drawn_from_each_slide(folder: Path) -> None:
    config = AtlasConfig(features=(folder,), most=100)
    notes: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    atlas = run(make_atlas(config), listen)
    assert np.bincount(atlas.slide).tolist() == [50, 50]
    assert notes == ["100 of 358 patches, drawn at random"]
    assert all(len(np.unique(atlas.row[atlas.slide == n])) == 50 for n in (0, 1))
    assert np.array_equal(atlas.row, run(make_atlas(config)).row)


def test_features_of_several_encoders_are_refused(folder: Path) -> None:
    save_features(features_of("c", "f" * 16), folder / "c.features.zarr")
    with pytest.raises(FeatureError, match="c.features.zarr: is of another encoder"):
        run(make_atlas(AtlasConfig(features=(folder,))))


def test_a_folder_without_features_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="holds no feature files"):
        run(make_atlas(AtlasConfig(features=(tmp_path,))))
    with pytest.raises(FeatureError, match="no such feature file or folder"):
        run(make_atlas(AtlasConfig(features=(tmp_path / "none",))))


def test_clusters_are_written_for_others(folder: Path) -> None:
    config = AtlasConfig(features=(folder,), clusters=ClusterConfig(count=KINDS))
    atlas = run(make_atlas(config))
    files = run(write_atlas(atlas, folder / "out"))
    assert [file.name for file in files] == [
        "clusters.csv",
        "a.clusters.geojson",
        "b.clusters.geojson",
    ]
    with files[0].open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == len(atlas)
    grids = {name: features_of(name).grid for name in "ab"}
    for patch, row in enumerate(rows):
        grid = grids[row["slide"]]
        at = grid.index_at(float(row["x"]) + 1, float(row["y"]) + 1)
        assert at == atlas.row[patch]
        assert int(row["cluster"]) == atlas.clusters[patch] + 1
        assert float(row["map_x"]) == pytest.approx(atlas.map[patch, 0], rel=1e-4)
    found = json.loads(files[1].read_text(encoding="utf-8"))["features"]
    assert len(found) == 179
    width, height = grids["a"].patch_size_level0
    for patch, feature in enumerate(found):
        outline = shape(feature["geometry"])
        assert outline.bounds[:2] == atlas.corner_of(patch)
        assert outline.area == pytest.approx(width * height)
        name = f"cluster {atlas.clusters[patch] + 1}"
        assert feature["properties"]["classification"]["name"] == name


def test_what_is_not_installed_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(apart._MODULES, "umap", "no_such_module")
    config = AtlasConfig(features=(folder,), map=MapConfig(method="umap"))
    with pytest.raises(
        ConfigError, match=r"UMAP is not installed.*napari-mcm\[atlas\]"
    ):
        run(make_atlas(config))


def test_a_cancel_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the process does: it is not waited for."""
    started = tmp_path / "started"
    code = f"open({str(started)!r}, 'w').close(); import time; time.sleep(600)"
    real, made = apart.subprocess.Popen, []

    def popen(command: list[str], **options: object) -> object:
        made.append(real([command[0], "-c", code], **options))  # type: ignore[call-overload]
        return made[-1]

    monkeypatch.setattr(apart, "is_installed", lambda _: True)
    monkeypatch.setattr(apart.subprocess, "Popen", popen)
    job = apart.compute_apart("umap", np.zeros((9, 3), np.float32), {})
    while not started.exists():
        next(job)
        time.sleep(0.01)
    assert made[0].poll() is None
    job.close()
    assert made[0].poll() is not None


def test_a_process_that_fails_says_why() -> None:
    options = {"neighbours": 2, "unknown": 1}
    if not is_installed("umap"):
        pytest.skip("needs the extra atlas")
    with pytest.raises(McmError, match="Placing patches by UMAP failed: TypeError"):
        run(apart.compute_apart("umap", np.zeros((9, 3), np.float32), options))


@pytest.mark.timeout(600)
@pytest.mark.skipif(not is_installed("umap"), reason="needs the extra atlas")
def test_umap_keeps_kinds_apart_and_its_map_beside_the_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AtlasConfig(
        features=(folder,), map=MapConfig(method="umap"), neighbourhood=ALONE
    )
    atlas = run(make_atlas(config))
    kinds = np.concatenate([kinds_of(name)[1:] for name in "ab"])
    means = np.stack([atlas.map[kinds == k].mean(axis=0) for k in range(KINDS)])
    nearest = np.linalg.norm(atlas.map[:, None] - means, axis=2).argmin(axis=1)
    assert (nearest == kinds).mean() > 0.98
    (kept,) = (folder / FOLDER).iterdir()
    monkeypatch.setattr("napari_mcm.core.atlas.atlas.compute_apart", None)
    assert np.array_equal(run(make_atlas(config)).map, atlas.map)
    kept.write_bytes(b"damaged")
    monkeypatch.undo()
    # The seed is fixed.
    assert np.array_equal(run(make_atlas(config)).map, atlas.map)


@pytest.mark.skipif(not is_installed("leiden"), reason="needs the extra atlas")
def test_leiden_finds_the_kinds_itself(folder: Path) -> None:
    config = AtlasConfig(
        features=(folder,),
        clusters=ClusterConfig(algorithm="leiden", resolution=0.3),
        neighbourhood=ALONE,
    )
    atlas = run(make_atlas(config))
    kinds = np.concatenate([kinds_of(name)[1:] for name in "ab"])
    pairs = set(zip(kinds.tolist(), atlas.clusters.tolist(), strict=True))
    assert len(pairs) == atlas.cluster_count == KINDS
