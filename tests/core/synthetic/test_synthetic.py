"""The generated cohort: repeatable, well-formed, and true to what it promises."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.synthetic import Cohort, SampleConfig, generate_cohort
from napari_mcm.core.synthetic.cells import mix_palette
from napari_mcm.core.synthetic.cohort import plan_sample
from napari_mcm.core.synthetic.outlines import COLOURS
from napari_mcm.core.synthetic.render import BLOCK, Scene, draw_block, set_scene

SIZE = 1210
CONFIG = SampleConfig(slides=4, size=SIZE, seed=3, workers=2)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return run(generate_cohort(tmp_path_factory.mktemp("cohort"), CONFIG))


def features(slide: Path) -> list[dict]:
    name = slide.name.removesuffix(".ome.tif") + ".geojson"
    return json.loads(slide.with_name(name).read_text(encoding="utf-8"))["features"]


def test_same_seed_gives_same_pixels_whatever_the_workers(
    cohort: Cohort, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"workers": 1, "slides": 2})
    alone = run(generate_cohort(tmp_path, config))
    for first, second in zip(cohort.slides[:2], alone.slides, strict=True):
        assert (tifffile.imread(first) == tifffile.imread(second)).all()
        assert features(first) == features(second)


def test_other_seed_and_other_slide_give_other_pixels(
    cohort: Cohort, tmp_path: Path
) -> None:
    other = run(generate_cohort(tmp_path, SampleConfig(slides=1, size=SIZE, seed=4)))
    first = tifffile.imread(cohort.slides[0])
    assert (first != tifffile.imread(other.slides[0])).mean() > 0.2
    assert (first != tifffile.imread(cohort.slides[1])).mean() > 0.2


def test_slides_are_tiled_pyramids_with_physical_size(cohort: Cohort) -> None:
    for slide in cohort.slides:
        with tifffile.TiffFile(slide) as tiff:
            levels = tiff.series[0].levels
            assert [level.shape for level in levels] == [
                (SIZE, SIZE, 3),
                (SIZE // 2, SIZE // 2, 3),
                (SIZE // 4, SIZE // 4, 3),
            ]
            assert all(level.keyframe.tile == (256, 256) for level in levels)
            assert 'PhysicalSizeX="0.5"' in (tiff.ome_metadata or "")
            assert 'PhysicalSizeYUnit="µm"' in (tiff.ome_metadata or "")


def test_lower_levels_show_the_same_as_level_0(cohort: Cohort) -> None:
    with tifffile.TiffFile(cohort.slides[0]) as tiff:
        fine, half = (
            level.asarray().astype(float) for level in tiff.series[0].levels[:2]
        )
    means = fine.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - half).mean() < 4


def test_tissue_covers_half_to_two_thirds_and_is_no_square(cohort: Cohort) -> None:
    for slide in cohort.slides:
        pixels = tifffile.imread(slide).astype(int)
        glass = np.median(pixels[:40].reshape(-1, 3), axis=0)
        tissue = (np.abs(pixels - glass).max(axis=2) > 20)[::4, ::4]
        rows, columns = tissue.any(axis=1).sum(), tissue.any(axis=0).sum()
        assert 0.35 < tissue.mean() < 0.75
        assert tissue.sum() < 0.93 * rows * columns


def test_annotations_are_valid_polygons_inside_the_slide(cohort: Cohort) -> None:
    seen: set[str] = set()
    idents: list[str] = []
    for slide in cohort.slides:
        for feature in features(slide):
            properties = feature["properties"]
            name = properties["classification"]["name"]
            seen.add(name)
            idents.append(feature["id"])
            assert properties["objectType"] == "annotation"
            assert tuple(properties["classification"]["color"]) == COLOURS[name]
            assert feature["geometry"]["type"] == "Polygon"
            for ring in feature["geometry"]["coordinates"]:
                points = np.array(ring)
                assert len(points) >= 4
                assert (points[0] == points[-1]).all()
                assert points.min() >= 0
                assert points.max() <= SIZE
    assert {"Tumour", "Ductal hyperplasia", "Stroma", "Pen mark"} <= seen
    assert len(set(idents)) == len(idents)


def test_table_agrees_with_files_and_annotations(cohort: Cohort) -> None:
    with cohort.cohort.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["slide_id", "label", "patient_id", "path"]
    assert [cohort.cohort.parent / row["path"] for row in rows] == list(cohort.slides)
    patients = defaultdict(set)
    for row, slide in zip(rows, cohort.slides, strict=True):
        names = {f["properties"]["classification"]["name"] for f in features(slide)}
        assert row["slide_id"] == slide.name.removesuffix(".ome.tif")
        assert (row["label"] == "tumour") == ("Tumour" in names)
        patients[row["patient_id"]].add(row["label"])
    assert list(patients.values()) == [{"tumour"}, {"normal"}]


def test_nuclei_are_darker_and_bluer_than_stroma(cohort: Cohort) -> None:
    pixels = tifffile.imread(cohort.slides[0]).reshape(-1, 3).astype(int)
    red, green, blue = pixels.T
    dark = pixels[red < 110]
    pink = pixels[(red > 200) & (green < 190)]
    assert 0.01 < len(dark) / len(pixels) < 0.4
    assert (dark[:, 2] > dark[:, 0]).mean() > 0.95
    assert (pink[:, 0] > pink[:, 1]).mean() > 0.95


@pytest.mark.parametrize("moment", [0, 3])
def test_closing_the_job_stops_it_and_leaves_no_halves(
    tmp_path: Path, moment: int
) -> None:
    job = generate_cohort(tmp_path, SampleConfig(slides=2, size=4000, workers=2))
    for event in job:
        assert isinstance(event, Progress)
        if event.done >= moment:
            break
    assert event.total is not None and event.done < event.total
    job.close()
    assert not multiprocessing.active_children()
    assert [path.name for path in tmp_path.iterdir()] == ["sample.json"]


def test_started_again_it_draws_what_is_missing(tmp_path: Path) -> None:
    def drawn(slides: int, seed: int = 0) -> list[tuple[int, int]]:
        config = SampleConfig(slides=slides, size=600, seed=seed)
        paths = run(generate_cohort(tmp_path, config)).slides
        return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]

    first = drawn(2)
    # What a slide stopped in the middle lacks is its regions, written last.
    (tmp_path / "slide_01.geojson").unlink()
    second = drawn(3)
    assert second[0] == first[0] and second[1] != first[1]
    assert drawn(3) == second
    assert not set(drawn(1, seed=1)) & set(second)
    # The last two were drawn by another seed, though by none since this one began.
    assert not set(drawn(3, seed=1)) & set(second)


@pytest.mark.parametrize("kept", [4, -2000])
def test_a_slide_that_was_cut_short_is_drawn_again(tmp_path: Path, kept: int) -> None:
    config = SampleConfig(slides=1, size=600)
    (path,) = run(generate_cohort(tmp_path, config)).slides
    whole = tifffile.imread(path)
    path.write_bytes(path.read_bytes()[:kept])
    run(generate_cohort(tmp_path, config))
    np.testing.assert_array_equal(tifffile.imread(path), whole)


def test_progress_counts_up_to_its_total(tmp_path: Path) -> None:
    events = list(generate_cohort(tmp_path, SampleConfig(slides=2, size=600)))
    counts = [event.done for event in events if isinstance(event, Progress)]
    assert counts == sorted(counts)
    assert counts[-1] == events[0].total


@pytest.mark.parametrize("wrong", [{"size": 100}, {"slides": 0}, {"sizes": 4000}])
def test_wrong_options_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SampleConfig(**wrong)


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_other_resolutions_draw_the_same_kind_of_tissue(
    tmp_path: Path, mpp: float
) -> None:
    config = SampleConfig(slides=1, size=round(520 / mpp), mpp=mpp)
    pixels = tifffile.imread(run(generate_cohort(tmp_path, config)).slides[0])
    assert 0.01 < (pixels[..., 0] < 120).mean() < 0.3


# What the cohort is for: context tells two classes apart that patches do not.

PATCH = 224
WINDOW = 4 * PATCH


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    config = SampleConfig(size=3000, seed=0)
    palette = mix_palette(config.mpp, np.random.default_rng(0))
    return [set_scene(plan_sample(config, index), palette) for index in (0, 1, 4, 5)]


def inner_patches(scene: Scene) -> list[tuple[int, int, bool]]:
    """(y, x, is tumour) of patches that lie wholly within sheets of one class."""
    layout, step = scene.layout, scene.layout.chart.step
    found = []
    for y in range(0, 3000 - PATCH, BLOCK // 4):
        for x in range(0, 3000 - PATCH, BLOCK // 4):
            box = np.s_[
                y // step : (y + PATCH) // step + 1, x // step : (x + PATCH) // step + 1
            ]
            for field, is_tumour in ((layout.tumour, True), (layout.ducts, False)):
                if field[box].min() > 6:
                    found.append((y, x, is_tumour))
    return found


def count_nuclei(scene: Scene, y: int, x: int, side: int) -> int:
    middle = PATCH // 2
    left, top = x + middle - side // 2, y + middle - side // 2
    cells = scene.cells["tumour"].within(left, top, left + side, top + side)
    return len(cells.x)


def auc(values: list[float], labels: list[bool]) -> float:
    """Chance that a tumour patch has a higher value than one of a duct."""
    high, low = np.array(values)[labels], np.array(values)[~np.array(labels)]
    above = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    return float(above)


def test_nuclear_density_of_a_patch_does_not_tell_but_of_its_window_does(
    scenes: list[Scene],
) -> None:
    patch: list[float] = []
    window: list[float] = []
    labels: list[bool] = []
    for scene in scenes:
        for y, x, is_tumour in inner_patches(scene):
            patch.append(count_nuclei(scene, y, x, PATCH))
            window.append(count_nuclei(scene, y, x, WINDOW))
            labels.append(is_tumour)
    assert min(sum(labels), len(labels) - sum(labels)) > 30
    assert 0.35 < auc(patch, labels) < 0.65
    assert auc(window, labels) > 0.85


def draw_patch(scene: Scene, y: int, x: int) -> NDArray[np.uint8]:
    """Draw one patch from the squares that it touches."""
    top, left = y // BLOCK * BLOCK, x // BLOCK * BLOCK
    rows = [
        np.hstack([draw_block(scene, row, column) for column in (left, left + BLOCK)])
        for row in (top, top + BLOCK)
    ]
    return np.vstack(rows)[y - top :, x - left :][:PATCH, :PATCH]


def test_colours_of_a_patch_do_not_tell(scenes: list[Scene]) -> None:
    colours: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    patches = inner_patches(scenes[2])
    for label, found in colours.items():
        mine = [(y, x) for y, x, is_tumour in patches if is_tumour == label]
        for y, x in mine[:: max(len(mine) // 6, 1)][:6]:
            pixels = draw_patch(scenes[2], y, x).reshape(-1, 3)
            found.append(np.r_[pixels.mean(axis=0), pixels.std(axis=0)])
    tumour, duct = (np.array(colours[key]) for key in (True, False))
    assert min(len(tumour), len(duct)) >= 5
    spread = np.concatenate([tumour - tumour.mean(0), duct - duct.mean(0)]).std(axis=0)
    assert (np.abs(tumour.mean(0) - duct.mean(0)) < 1.5 * spread).all()


def test_every_kind_of_structure_occurs(scenes: list[Scene]) -> None:
    for name in ("tumour", "ducts", "glands", "lumens", "lobules", "fat", "vessels"):
        assert sum((getattr(s.layout, name) > 0).any() for s in scenes) >= 3, name
    assert any((scene.layout.lymph > 0.5).sum() > 50 for scene in scenes)
