"""Verification: whole files pass, and each kind of damage is told for what it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features import Status
from napari_mcm.core.features.format import attributes_of, load_schema
from napari_mcm.core.features.interchange import save_features
from napari_mcm.core.features.store import FeatureStore, create_group
from napari_mcm.core.features.verify import VerifyConfig, verify_file, verify_files
from napari_mcm.core.features.write_lock import WriteLock
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.runtime.jobs import Progress, run
from napari_mcm.core.slides import open_slide
from tests.core.conftest import stained_image
from tests.core.features.made_features import made_features, made_grid

BLOCK = 16
ARRAYS = ("coords", "lattice", "features", "status", "blur", "artefact")


def write(path: Path, features=None, until: int | None = None) -> Path:
    """Write a feature file in blocks, as an extraction does."""
    features = made_features() if features is None else features
    store = FeatureStore.open(path, features.grid, features.encoder, BLOCK)
    for start in range(0, len(features) if until is None else until, BLOCK):
        rows = slice(start, start + BLOCK)
        quality = {name: values[rows] for name, values in features.quality.items()}
        store.write(start, features.features[rows], features.status[rows], (), quality)
    if until is None:
        store.finish({"software": "test", "counts": store.counts})
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "a.features.zarr")


def verdict(path):
    found = run(verify_file(path))
    assert "\n" not in str(found)
    return found


def test_a_sound_file_is_ok(file):
    found = verdict(file)
    assert (found.state, found.what) == ("ok", "ok (80 rows)")
    assert found.contents.checksums


def test_the_schema_is_one_and_installed():
    from jsonschema import Draft202012Validator

    schema = load_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")


def test_a_slide_without_tissue_is_ok(tmp_path):
    features = made_features(rows=0)
    assert verdict(write(tmp_path / "a.features.zarr", features)).what == "ok (0 rows)"


@pytest.mark.parametrize("name", ARRAYS)
def test_a_flipped_bit_is_found_and_placed(file, name):
    rng = np.random.default_rng(len(name))
    parts = [part for part in (file / name / "c").rglob("*") if part.is_file()]
    assert len(parts) == (1 if name in ("coords", "lattice") else 5)
    for part in parts:
        whole = part.read_bytes()
        spoiled = bytearray(whole)
        spoiled[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        part.write_bytes(spoiled)
        found = verdict(file)
        assert found.state == "damaged"
        number = (
            0 if name in ("coords", "lattice") else int(part.relative_to(file).parts[2])
        )
        assert found.what.startswith(f"damaged ({name}: rows {number * BLOCK} to ")
        part.write_bytes(whole)
        # A chunk that is lost is not taken for one that holds nothing.
        part.unlink()
        assert "missing" in verdict(file).what
        part.write_bytes(whole)
    assert verdict(file).state == "ok"


def test_one_that_was_broken_off_is_incomplete(tmp_path):
    path = write(tmp_path / "a.features.zarr", until=32)
    found = verdict(path)
    assert found.state == "incomplete"
    assert "32 of 80 rows; run the same extraction to resume" in found.what
    with WriteLock.take(path):
        assert "being written by process" in verdict(path).what
    # What is written already must be sound.
    part = path / "features" / "c" / "1" / "0"
    part.write_bytes(b"\0" + part.read_bytes()[1:])
    assert verdict(path).state == "damaged"
    # What is not done yet may hold anything.
    path = write(tmp_path / "b.features.zarr", until=32)
    (path / "features" / "c" / "2").mkdir()
    (path / "features" / "c" / "2" / "0").write_bytes(b"half a chu")
    assert verdict(path).state == "incomplete"


def test_one_that_was_killed_at_its_first_moment_is_incomplete(tmp_path):
    grid, encoder = made_grid(), made_features().encoder
    path = tmp_path / "a.features.zarr"
    create_group(path, grid, encoder, BLOCK)
    content = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**content, "attributes": {}}))
    assert verdict(path).what.startswith("incomplete (empty")
    for part in path.iterdir():
        part.unlink() if part.is_file() else shutil.rmtree(part)
    assert verdict(path).state == "incomplete"


def changed(name, row, value):
    def change(file):
        array = zarr.open_group(file, mode="r+")[name]
        with zarr.config.set({"array.write_empty_chunks": True}):
            array[row] = value

    return change


def stated(**attributes):
    return lambda file: zarr.open_group(file, mode="r+").update_attributes(attributes)


def metadata(name, **entries):
    def change(file):
        part = file / name / "zarr.json"
        part.write_text(json.dumps({**json.loads(part.read_text()), **entries}))

    return change


GRID = made_grid().describe()
IDENTITY = {"slide": "5" * 16, "encoder": "e" * 16, "precision": "float32"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed("status", 5, 77), "status: row 5 is 77"),
        (changed("status", 5, Status.PENDING), "row 5 is not written, but"),
        (changed("status", 5, Status.BLANK), "features: row 5 has numbers"),
        (changed("features", (41, 2), np.nan), "features: row 41 is NaN, but"),
        (changed("features", (3, 2), 1.0), "features: row 3 has numbers"),
        (changed("blur", 41, 1.5), "blur: row 41 is not from 0 to 1"),
        (changed("artefact", 3, 0.5), "artefact: row 3 has a number"),
        (changed("coords", 9, (0, 0)), "identity.grid is"),
        (changed("lattice", 9, (0, 2)), "lattice: row 9 does not match its coords"),
        (changed("lattice", 9, (99, 2)), "outside the lattice"),
        (stated(identity={**IDENTITY, "grid": "0" * 16}), "identity.grid is 0000"),
        (stated(grid={**GRID, "mpp": 0.25}), "identity.grid is"),
        (stated(grid={**GRID, "mpp": -1}), "attributes.grid.mpp: -1 is less"),
        (stated(encoder={"fingerprint": "f", "precision": "p", "dim": 5}), "identity"),
        (stated(encoder={"fingerprint": "f", "precision": "p", "dim": 6}), "6"),
        (stated(provenance={"counts": {"ok": 80}}), "provenance.counts"),
        (stated(problems=[3]), "attributes.problems.0"),
        (stated(complete="yes"), "attributes.complete"),
        (metadata("features", data_type="float64"), "arrays.features.data_type"),
        (metadata("status", shape=[79]), "arrays differ in length"),
        (metadata("features", shape=[80, 6]), "6 columns"),
        (metadata("blur", fill_value=0), "arrays.blur.fill_value"),
        (lambda file: (file / "zarr.json").write_text("{"), "zarr.json is not JSON"),
        (lambda file: (file / "zarr.json").unlink(), "zarr.json is missing"),
        (lambda file: (file / "status/zarr.json").write_text("["), "status/zarr.json"),
        (lambda file: shutil.rmtree(file / "coords"), "'coords' is a required"),
    ],
)
def test_what_is_wrong_is_told(file, change, what):
    change(file)
    found = verdict(file)
    assert found.state == "damaged"
    assert what in found.what


def test_a_patch_that_comes_twice_or_lies_beyond_the_slide_is_damage(tmp_path):
    features = made_features()
    for name, xy, what in (
        ("twice", (0, 0), "row 0 occurs more than once"),
        ("beyond", (64, 5 + 10 * 64), "row 9 lies beyond the slide"),
        ("before", (64, -1), "row 9 lies beyond the slide"),
    ):
        places = features.grid.xy.copy()
        places[9] = xy
        grid = PatchGrid.from_description(GRID, places, features.grid.lattice)
        wrong = dataclasses.replace(features, grid=grid)
        assert what in verdict(write(tmp_path / f"{name}.features.zarr", wrong)).what


def test_a_file_that_claims_to_be_huge_is_not_read(file):
    for name in ARRAYS:
        array = zarr.open_group(file, mode="r+")[name]
        array.resize((2**40, *array.shape[1:]))
    assert verdict(file).state == "damaged"


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_later_version_is_refused_and_not_called_damaged(file, version):
    stated(version=version)(file)
    assert verdict(file).what == f"has version {version}, this program reads 1"


def test_foreign_files_are_sent_to_convert(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    zarr.create_group(tmp_path / "b.zarr").update_attributes({"schema": "other"})
    for name in ("a.h5", "b.zarr"):
        found = verdict(tmp_path / name)
        assert found.state == "refused" and "see napari-mcm convert" in found.what


def test_files_without_checksums_are_ok_and_said_to_be(file):
    group = zarr.open_group(file, mode="r+")
    for name in ARRAYS:
        old, values = group[name], group[name][:]
        group.create_array(
            name,
            shape=old.shape,
            chunks=old.chunks,
            dtype=old.dtype,
            fill_value=old.fill_value,
            config={"write_empty_chunks": True},
            overwrite=True,
        )[:] = values
    found = verdict(file)
    assert found.state == "ok" and "written without checksums" in found.what
    assert not found.contents.checksums


def test_converted_features_are_ok(tmp_path):
    path = save_features(made_features(fingerprint=""), tmp_path / "a.features.zarr")
    assert verdict(path).state == "ok"


def verified(*files, **given):
    return run(verify_files(VerifyConfig(files=files, **given)))


def test_folders_are_searched(tmp_path):
    write(tmp_path / "one" / "a.features.zarr")
    write(tmp_path / "two" / "b.0123abcd.features.zarr")
    shutil.copytree(tmp_path / "one", tmp_path / ".hidden")
    found = verified(tmp_path, tmp_path / "one")
    assert [v.file.name for v in found] == [
        "a.features.zarr",
        "b.0123abcd.features.zarr",
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="holds no feature files"):
        verified(tmp_path / "none")
    with pytest.raises(ConfigError, match="no such file"):
        verified(tmp_path / "nowhere")


def test_files_must_be_of_their_slides(write_slide, tmp_path):
    slide = write_slide(stained_image(600, 700), "a.ome.tif")
    other = write_slide(stained_image(600, 700, 1), "b.ome.tif")
    with open_slide(slide) as opened:
        mine = opened.fingerprint
    own = write(tmp_path / "own.features.zarr", made_features(fingerprint=mine))
    alien = write(tmp_path / "alien.features.zarr")
    none = write(tmp_path / "none.features.zarr", made_features(fingerprint=""))

    def states(*files, **given):
        return [v.state for v in verified(*files, **given)]

    assert states(own, alien, slide=slide) == ["ok", "refused"]
    assert states(own, slide=other) == ["refused"]
    assert states(own, alien, none, slides=(other, slide)) == ["ok"] + ["refused"] * 2
    (told,) = verified(alien, slides=(slide,))
    assert "another slide than a: 5555555555555555 there" in told.what
    (told,) = verified(alien, slides=(other,))
    assert "none of the slides" in told.what
    (told,) = verified(none, slide=slide)
    assert "convert --slide" in told.what


def test_a_cancel_is_heard_between_blocks_and_memory_is_bounded(tmp_path):
    import tracemalloc

    grid = made_grid(rows=200, columns=100)
    features = made_features(dim=256, rows=200, columns=100)
    path = tmp_path / "a.features.zarr"
    store = FeatureStore.open(path, grid, features.encoder, 500)
    for start in range(0, len(features), 500):
        rows = slice(start, start + 500)
        store.write(start, features.features[rows], features.status[rows])
    store.finish({"software": "test"})
    del features
    tracemalloc.start()
    try:
        events = 0
        for event in verify_file(path):
            assert isinstance(event, Progress)
            events += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One per block, of 40.
    assert events > 40
    # All features are 20 MB; a block is half a megabyte.
    assert peak < 8 * 2**20


def test_a_file_is_never_changed(file):
    before = {p: p.stat().st_mtime_ns for p in file.rglob("*")}
    verdict(file)
    assert {p: p.stat().st_mtime_ns for p in file.rglob("*")} == before
    assert attributes_of(file)["complete"] is True
