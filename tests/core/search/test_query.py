"""Queries of a search: examples on slides, regions, pictures and saved queries."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from napari_mcm.core.errors import ConfigError, FeatureError, McmError
from napari_mcm.core.features import ExtractConfig, read_features
from napari_mcm.core.features.batch_extraction import extract_slides
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.project import Project, write_project
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.search import SearchConfig, SearchOutcome, cross_slide, search
from napari_mcm.core.search.files import list_files
from napari_mcm.core.search.query import make_search_query
from tests.core.conftest import stained_image, write_pyramid
from tests.core.features.made_features import SIDE
from tests.core.search.cohort import made_slide, write_cohort

ENCODER = "random:test_resnet"

PATCH = 64

MOTIF = 320, 320
"""Corner of the planted motif on slide c, a multiple of the patch size."""


def motif(seed: int) -> np.ndarray:
    """Dark green stripes, as no other tissue has: each with its own noise."""
    y, x = np.mgrid[:PATCH, :PATCH]
    lines = ((x + y) // 6 % 2)[..., None]
    image = np.where(lines == 1, (30, 90, 60), (190, 205, 150)).astype(float)
    image += np.random.default_rng(seed).normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of four slides with features; a and c have the motif."""
    folder = tmp_path_factory.mktemp("cohort")
    paths = []
    for number, name in enumerate("abcd"):
        image = stained_image(640, 640, seed=number)
        if name == "a":
            image[256:320, 192:256] = motif(0)
        if name == "c":
            image[MOTIF[1] : MOTIF[1] + PATCH, MOTIF[0] : MOTIF[0] + PATCH] = motif(1)
        paths.append(write_pyramid(folder / f"{name}.ome.tif", image))
    config = ExtractConfig(
        slides=tuple(paths),
        encoder=(ENCODER,),
        out=folder / "features",
        grid=GridConfig(mpp=0.5, patch_size=PATCH),
    )
    run(extract_slides(config))
    return folder


def found(slides: Path, **options) -> SearchOutcome:
    options = {"neighbourhood": {"radius": 0}, "index": "off"} | options
    return run(search(SearchConfig(features=slides / "features", **options)))


def test_a_planted_motif_is_found_first(slides: Path) -> None:
    result = found(slides, at=("a:200,300",)).result
    best = result.patches[0]
    assert (best.slide, best.x, best.y) == ("c", *MOTIF)
    assert result.matches[0].name == "c" and result.matches[0].best == best.value
    # The example itself is not in the list, on its own slide either.
    assert ("a", 192, 256) not in {(p.slide, p.x, p.y) for p in result.patches}


@pytest.mark.parametrize("radius", [0, 1])
def test_the_ranking_is_that_of_each_slides_map(slides: Path, radius: int) -> None:
    result = found(
        slides, at=("a:200,300",), neighbourhood={"radius": radius}, count=500
    ).result
    index = {
        name: SimilarityIndex(
            read_features(slides / "features" / f"{name}.features.zarr"),
            result_context(radius),
        )
        for name in "abcd"
    }
    row = index["a"].features.grid.index_at(200, 300)
    direction = index["a"].directions(row)
    wanted = {}
    for name, one in index.items():
        for patch, value in enumerate(one.compare(direction)):
            if np.isfinite(value) and (name, patch) != ("a", row):
                wanted[name, patch] = float(value)
    assert {(p.slide, p.row): p.value for p in result.patches} == wanted
    values = [p.value for p in result.patches]
    assert values == sorted(values, reverse=True)
    for patch in result.patches:
        grid = index[patch.slide].features.grid
        assert (patch.x, patch.y) == tuple(grid.xy[patch.row])


def result_context(radius: int):
    return SearchConfig(features=Path(), neighbourhood={"radius": radius}).neighbourhood


def test_at_most_k_patches_of_a_slide_are_listed(slides: Path) -> None:
    everything = found(slides, at=("a:200,300",), count=500).result.patches
    result = found(slides, at=("a:200,300",), per_slide=2, count=7).result
    wanted = []
    for patch in everything:
        if sum(one.slide == patch.slide for one in wanted) < 2:
            wanted.append(patch)
    assert result.patches == tuple(wanted[:7])


def test_a_picture_has_the_features_of_the_slide_it_is_of(
    slides: Path, tmp_path: Path
) -> None:
    file = slides / "features" / "a.features.zarr"
    features = read_features(file)
    row = features.grid.index_at(200, 300)
    picture = tmp_path / "motif.png"
    image = stained_image(640, 640, seed=0)
    image[256:320, 192:256] = motif(0)
    Image.fromarray(image[256:320, 192:256]).save(picture)
    config = SearchConfig(
        features=slides / "features",
        picture=(picture,),
        read={"mpp_override": 0.5},
        neighbourhood={"radius": 0},
    )
    query = run(make_search_query(config, list_files(config.features)))
    direction = SimilarityIndex(features).directions(row)
    np.testing.assert_array_equal(query.directions, direction)
    result = found(slides, picture=(picture,), read={"mpp_override": 0.5}).result
    first, second = result.patches[:2]
    assert (first.slide, first.x, first.y) == ("a", 192, 256)
    assert first.value == pytest.approx(1, abs=1e-6)
    assert (second.slide, second.x, second.y) == ("c", *MOTIF)


def test_a_picture_of_finer_pixels_is_averaged(slides: Path, tmp_path: Path) -> None:
    picture = tmp_path / "fine.png"
    Image.fromarray(np.kron(motif(3), np.ones((2, 2, 1), np.uint8))).save(picture)
    result = found(slides, picture=(picture,), read={"mpp_override": 0.25}).result
    assert {p.slide for p in result.patches[:2]} == {"a", "c"}


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (PATCH, {}, "states no physical resolution"),
        (PATCH, {"mpp_override": 1.0}, "coarser than the features' 0.5"),
        (PATCH, {"mpp_override": 0.25}, "16 × 16 µm, smaller than a patch of 32 µm"),
        (2500, {"mpp_override": 0.5}, "has room for 1,521 patches"),
    ],
)
def test_a_picture_of_wrong_size_or_resolution_is_one_line(
    slides: Path, tmp_path: Path, size: int, options: dict, words: str
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(stained_image(size, size)).save(picture)
    with pytest.raises(McmError, match=words) as caught:
        found(slides, picture=(picture,), read=options)
    assert str(picture) in str(caught.value) and "\n" not in str(caught.value)


def test_a_blank_picture_and_none_are_one_line(slides: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((PATCH, PATCH, 3), 240, np.uint8)).save(blank)
    with pytest.raises(FeatureError, match="all its patches are blank"):
        found(slides, picture=(blank,), read={"mpp_override": 0.5})
    with pytest.raises(McmError, match=r"none\.png"):
        found(slides, picture=(tmp_path / "none.png",))


def test_a_picture_needs_the_encoder_of_the_features(
    slides: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "motif.png"
    Image.fromarray(motif(0)).save(picture)
    with pytest.raises(FeatureError, match="was made with another encoder"):
        found(
            slides,
            picture=(picture,),
            read={"mpp_override": 0.5},
            encoder="random:test_vit",
        )


def test_examples_on_several_slides_are_combined(slides: Path) -> None:
    points = ("a:200,300", "c:350,350")
    config = SearchConfig(
        features=slides / "features",
        at=points,
        not_at=("b:300,300",),
        neighbourhood={"radius": 0},
    )
    query = run(make_search_query(config, list_files(config.features)))

    def unit(name: str, x: float, y: float) -> np.ndarray:
        features = read_features(slides / "features" / f"{name}.features.zarr")
        vector = features.features[features.grid.index_at(x, y)].astype(np.float64)
        return vector / np.linalg.norm(vector)

    wanted = (unit("a", 200, 300) + unit("c", 350, 350)) / 2 - unit("b", 300, 300)
    wanted /= np.linalg.norm(wanted)
    np.testing.assert_allclose(query.directions[0], wanted, atol=1e-6)
    assert len(query.examples) == 3
    nearest = run(
        make_search_query(
            config.model_copy(update={"pool": "max", "not_at": ()}),
            list_files(config.features),
        )
    )
    both = [unit("a", 200, 300), unit("c", 350, 350)]
    np.testing.assert_allclose(nearest.directions, both, atol=1e-6)


def test_a_region_is_all_patches_whose_centre_is_inside(
    slides: Path, tmp_path: Path
) -> None:
    region = tmp_path / "region.geojson"
    outline = [[200, 200], [420, 200], [420, 330], [200, 330], [200, 200]]
    geometry = {"type": "Polygon", "coordinates": [outline]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {}}
    region.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    config = SearchConfig(
        features=slides / "features",
        region=(f"b:{region}",),
        neighbourhood={"radius": 0},
        save_query=tmp_path / "q.query.json",
    )
    query = run(make_search_query(config, list_files(config.features)))
    features = read_features(slides / "features" / "b.features.zarr")
    x, y = features.grid.centres.T
    inside = np.flatnonzero((x > 200) & (x < 420) & (y > 200) & (y < 330)).tolist()
    wanted = SimilarityIndex(features).directions(inside)
    np.testing.assert_allclose(query.directions, wanted, atol=1e-7)
    # What was saved gives the same result, and its examples are not ranked either.
    first = found(slides, region=(f"b:{region}",)).result.patches
    again = found(slides, query=tmp_path / "q.query.json", neighbourhood={}).result
    assert [(p.slide, p.row) for p in again.patches] == [
        (p.slide, p.row) for p in first
    ]
    assert not {p.row for p in first if p.slide == "b"} & set(inside)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, ConfigError, "query: is missing"),
        ({"at": ("a",)}, ConfigError, "--at: 'a' is not SLIDE:X,Y"),
        ({"at": ("a:1",)}, ConfigError, "is not SLIDE:X,Y"),
        ({"at": ("a:nan,1",)}, ConfigError, "is not SLIDE:X,Y"),
        ({"at": ("z:1,1",)}, FeatureError, "z: is no slide of"),
        ({"at": ("a:1,1",)}, FeatureError, "a: there is no patch at 1,1"),
        ({"not_at": ("a:200,300",)}, ConfigError, "query: is missing"),
        ({"region": ("a:none.geojson",)}, McmError, "none.geojson"),
        ({"region": ("none",)}, ConfigError, "'none' is not SLIDE:FILE"),
        ({"query": "x", "at": ("a:1,1",)}, ConfigError, "cannot be given with --at"),
        ({"query": "x.query.json"}, FeatureError, "x.query.json: cannot be read"),
        ({"at": ("a:200,300",), "out": ("a.txt",)}, ConfigError, "a.txt: ends in none"),
        (
            {"at": ("a:200,300",), "encoder": "other"},
            SearchOutcome,
            "the only encoder may have moved",
        ),
    ],
)
def test_a_wrong_query_is_one_line(
    slides: Path, options: dict, kind: type, words: str
) -> None:
    if kind is SearchOutcome:
        assert isinstance(found(slides, **options), SearchOutcome), words
        return
    with pytest.raises(kind, match=words) as caught:
        found(slides, **options)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="holds no feature files"):
        run(search(SearchConfig(features=tmp_path, at=("a:1,1",))))
    with pytest.raises(FeatureError, match="neither a folder"):
        run(search(SearchConfig(features=tmp_path / "none", at=("a:1,1",))))


def test_the_folders_of_several_encoders_are_one_cohort(tmp_path: Path) -> None:
    made = write_cohort(tmp_path / "first", "ab")
    (tmp_path / "second").mkdir()
    for name in "ab":
        other = made_slide(name, encoder="f" * 16)
        other.encoder["spec"] = "second"
        save_features(other, tmp_path / "second" / f"{name}.features.zarr")
    x, y = made["a"].grid.centres[10]
    config = SearchConfig(features=tmp_path, at=(f"a:{x},{y}",))
    with pytest.raises(ConfigError, match="several encoders"):
        run(search(config))
    result = run(search(config.model_copy(update={"encoder": "second"}))).result
    assert [m.features.parent.name for m in result.matches] == ["second"] * 2
    assert not result.skipped


def test_faults_of_some_files_leave_the_others(tmp_path: Path) -> None:
    made = write_cohort(tmp_path, "abcd")
    save_features(
        made_slide("e", encoder="f" * 16), tmp_path / "e.features.zarr"
    )  # another encoder
    chunk = tmp_path / "b.features.zarr" / "features" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-100])  # truncated
    (tmp_path / "c.features.zarr" / "status" / "c" / "0").unlink()  # a lost chunk
    x, y = made["a"].grid.centres[10]
    notes: list[str] = []
    outcome = run(
        search(SearchConfig(features=tmp_path, at=(f"a:{x},{y}",))),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert {match.name for match in outcome.result.matches} == {"a", "d"}
    reasons = dict(line.split(".features.zarr: ", 1) for line in outcome.result.skipped)
    assert list(reasons) == ["b", "c", "e"]
    assert "bytes, not" in reasons["b"] and "Delete it" in reasons["b"]
    assert "missing" in reasons["c"]
    assert reasons["e"] == "made with another encoder (made), skipped"
    assert notes == list(outcome.result.skipped)
    assert {patch.slide for patch in outcome.result.patches} == {"a", "d"}


def test_two_encoders_of_a_slide_need_a_choice(tmp_path: Path) -> None:
    made = write_cohort(tmp_path, "ab")
    other = replace(made["a"], encoder={**made["a"].encoder, "fingerprint": "f" * 16})
    other.encoder["spec"] = "second"
    save_features(other, tmp_path / "a.0123abcd.features.zarr")
    x, y = made["a"].grid.centres[10]
    config = SearchConfig(features=tmp_path, at=(f"a:{x},{y}",))
    with pytest.raises(ConfigError, match="several encoders .*--encoder"):
        run(search(config))
    chosen = config.model_copy(update={"encoder": "made"})
    assert [m.name for m in run(search(chosen)).result.matches] != []
    # Of an example on slide b, only one encoder is possible.
    x, y = made["b"].grid.centres[10]
    only = config.model_copy(update={"at": (f"b:{x},{y}",)})
    result = run(search(only)).result
    assert {m.name for m in result.matches} == {"a", "b"} and len(result.skipped) == 1


def test_a_project_names_its_files_and_what_is_missing(tmp_path: Path) -> None:
    made = write_cohort(tmp_path / "f", "abx")

    def slide(name: str, **files: str) -> dict:
        saved = {
            slot: {"path": path, "encoder": mark, "label": "made"}
            for slot, (path, mark) in files.items()
        }
        return {
            "name": name,
            "fingerprint": f"{name:_<16}",
            "state": {"features": saved},
        }

    mine = "e" * 16
    content = Project.new().model_dump() | {
        "slides": [
            slide(
                "a", first=("f/a.features.zarr", mine), second=("f/2.zarr", "f" * 16)
            ),
            slide("b", first=("f/b.features.zarr", mine)),
            slide("gone", first=("f/gone.features.zarr", mine)),
            slide("other", first=("f/o.features.zarr", "f" * 16)),
            slide("new"),
        ]
    }
    project = tmp_path / "study.mcm.json"
    write_project(project, Project.model_validate(content))
    x, y = made["a"].grid.centres[10]
    result = run(search(SearchConfig(features=project, at=(f"a:{x},{y}",)))).result
    # Slide x lies in the same folder, but does not belong to the project.
    assert {match.name for match in result.matches} == {"a", "b"}
    lines = dict(line.split(": ", 1) for line in result.skipped)
    assert set(lines) == {"gone", "other", "new"}
    assert "f/gone.features.zarr is missing" in lines["gone"]


def test_files_that_are_written_hold_what_was_found(tmp_path: Path) -> None:
    made = write_cohort(tmp_path / "f", "abc")
    x, y = made["a"].grid.centres[10]
    outputs = tuple(tmp_path / f"out.{kind}" for kind in ("json", "csv", "geojson"))
    config = SearchConfig(
        features=tmp_path / "f", at=(f"a:{x},{y}",), count=20, above=0.2, out=outputs
    )
    outcome = run(search(config))
    result = outcome.result
    content = json.loads(outputs[0].read_text())
    assert content["query"]["encoder"] == "made" and content["query"]["context"] == 1
    assert [p["value"] for p in content["patches"]] == [p.value for p in result.patches]
    with outputs[1].open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(r["slide"], int(r["x"]), float(r["value"])) for r in rows] == [
        (p.slide, p.x, p.value) for p in result.patches
    ]
    with (tmp_path / "out.slides.csv").open(newline="") as opened:
        table = list(csv.DictReader(opened))
    assert [(r["slide"], float(r["area_mm2"])) for r in table] == [
        (m.name, m.area_mm2) for m in result.matches
    ]
    places = []
    for file in outcome.files:
        if file.suffix == ".geojson":
            name = file.name.split(".")[1]
            for feature in json.loads(file.read_text())["features"]:
                box = shapely.from_geojson(json.dumps(feature["geometry"]))
                assert box.is_valid and box.area == SIDE**2
                rank = int(feature["properties"]["measurements"]["Rank"])
                places.append((rank, name, *map(int, box.bounds[:2])))
    wanted = [(n, p.slide, p.x, p.y) for n, p in enumerate(result.patches, 1)]
    assert sorted(places) == wanted


def test_a_cancelled_search_resumes(tmp_path: Path, monkeypatch) -> None:
    made = write_cohort(tmp_path / "f", "abcdef")
    x, y = made["a"].grid.centres[10]
    out = tmp_path / "out.json"
    config = SearchConfig(features=tmp_path / "f", at=(f"a:{x},{y}",), out=(out,))
    wanted = run(search(config.model_copy(update={"out": ()}))).result
    job = search(config)
    for event in job:
        if getattr(event, "unit", "") == "slides" and event.done == 3:
            break
    job.close()
    partial = tmp_path / ".out.json.partial.jsonl"
    assert len(partial.read_text().splitlines()) == 3 and not out.exists()
    # As if killed while a line was written; and one slide has changed meanwhile.
    partial.write_text(partial.read_text() + '{"key": "x", "sli')
    read: list[str] = []
    exactly = cross_slide._Search._exactly
    monkeypatch.setattr(
        cross_slide._Search,
        "_exactly",
        lambda self, file: read.append(file.name[0]) or exactly(self, file),
    )
    result = run(search(config)).result
    assert sorted(read) == ["d", "e", "f"]
    assert result == wanted
    assert out.exists() and not partial.exists()
    # Another query takes nothing from a partial file.
    job = search(config)
    for event in job:
        if getattr(event, "unit", "") == "slides" and event.done == 3:
            break
    job.close()
    assert partial.exists()
    read.clear()
    x, y = made["a"].grid.centres[20]
    run(search(config.model_copy(update={"at": (f"a:{x},{y}",)})))
    assert len(read) == 6
