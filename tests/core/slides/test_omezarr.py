"""OME-Zarr of all versions and orders shows the pixels that were written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from napari_mcm.core.errors import SlideError, TileError
from napari_mcm.core.slides import backend_for, open_slide
from tests.core.slides.zarr_samples import served, write_ome_zarr, zip_of


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (300, 420, 3), np.uint8)


def whole(slide) -> np.ndarray:
    return slide.read_level(0, 0, 0, *slide.size)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "cyx", "yxc", "yx", "zyxc", "tcyx"])
def test_any_order_of_axes_shows_the_same_pixels(tmp_path, noise, version, axes):
    path = write_ome_zarr(tmp_path / "a.ome.zarr", noise, axes, version)
    slide = open_slide(path)
    assert slide.backend == backend_for(path) == "OME-Zarr"
    assert slide.size == (420, 300) and slide.mpp == (0.5, 0.5)
    assert slide.warnings == () and slide.name == "a"
    expected = noise if "c" in axes else np.repeat(noise[..., :1], 3, axis=2)
    np.testing.assert_array_equal(whole(slide), expected)
    assert slide.levels[1].size == (210, 150)
    assert slide.levels[1].source.tile_size == (128, 128)


def test_a_shard_is_read_chunk_by_chunk(tmp_path, noise):
    slide = open_slide(write_ome_zarr(tmp_path / "s", noise, chunk=64, shard=256))
    assert slide.levels[0].source.tile_size == (64, 64)
    np.testing.assert_array_equal(whole(slide), noise)


@pytest.mark.parametrize(
    ("unit", "mpp"), [("nanometer", 250.0), ("millimeter", 0.00025), ("µm", 0.25)]
)
def test_scales_are_turned_into_microns(tmp_path, noise, unit, mpp):
    path = write_ome_zarr(tmp_path / "s.zarr", noise, mpp=mpp, unit=unit)
    assert open_slide(path).mpp == pytest.approx((0.25, 0.25))


def test_the_image_s_own_scale_multiplies_its_arrays(tmp_path, noise):
    path = write_ome_zarr(tmp_path / "s.zarr", noise, "cyx")
    change_ome(
        path,
        coordinateTransformations=[{"type": "scale", "scale": [1, 0.5, 2]}],
    )
    assert open_slide(path).mpp == (1.0, 0.25)


@pytest.mark.parametrize("unit", ["", "parsec"])
def test_a_scale_without_a_known_unit_is_no_resolution(tmp_path, noise, unit):
    path = write_ome_zarr(tmp_path / "s.zarr", noise, unit=unit)
    slide = open_slide(path)
    assert slide.stated_mpp is None
    assert any("unit" in warning for warning in slide.warnings)


def test_planes_and_times_are_chosen_and_said(tmp_path, noise):
    stack = np.stack([noise, noise + 1, noise + 2])
    group = zarr.open_group(tmp_path / "z", mode="w")
    group.create_array("0", data=stack.transpose(0, 3, 1, 2)[None])
    axes = [{"name": a, "type": "space"} for a in "tzcyx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}],
    }
    slide = open_slide(tmp_path / "z")
    np.testing.assert_array_equal(whole(slide), noise + 1)
    assert any("3 focal planes" in warning for warning in slide.warnings)
    assert slide.stated_mpp is None


def test_alpha_is_dropped(tmp_path, noise):
    rgba = np.dstack([noise, noise[..., :1]])
    np.testing.assert_array_equal(
        whole(open_slide(write_ome_zarr(tmp_path / "a", rgba, "yxc"))), noise
    )


@pytest.mark.parametrize("name", ["", "yx", "angle"])
def test_an_axis_of_one_may_be_called_anything(tmp_path, noise, name):
    path = write_ome_zarr(tmp_path / "a", noise)
    change_ome(path, axes=[{"name": a} for a in (name, *"czyx")])
    np.testing.assert_array_equal(whole(open_slide(path)), noise)


def test_a_missing_chunk_is_background(tmp_path, noise):
    path = write_ome_zarr(tmp_path / "m", noise, "yxc", "0.4")
    for file in (path / "0").glob("1.1.*"):
        file.unlink()
    pixels = whole(open_slide(path))
    assert (pixels[128:256, 128:256] == 255).all()
    np.testing.assert_array_equal(pixels[:128], noise[:128])


BLOSC = {"0.4": numcodecs.Blosc(), "0.5": zarr.codecs.BloscCodec()}
ZSTD = {"0.4": numcodecs.Zstd(), "0.5": zarr.codecs.ZstdCodec()}
PLAIN = {"0.4": None, "0.5": None}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("how", ["cut", "noise", "empty"])
@pytest.mark.parametrize("codec", [BLOSC, ZSTD, PLAIN])
def test_a_damaged_chunk_is_an_error_of_that_tile(tmp_path, noise, version, how, codec):
    path = write_ome_zarr(
        tmp_path / "d", noise, "cyx", version, compressors=codec[version]
    )
    chunk = path / ("0/0.1.1" if version == "0.4" else "0/c/0/1/1")
    data = chunk.read_bytes()
    damaged = {"cut": data[: len(data) // 2], "noise": b"\xa5" * 99, "empty": b""}
    chunk.write_bytes(damaged[how])
    slide = open_slide(path)
    with pytest.raises(TileError, match="tile 1, 1 of array 0") as error:
        slide.read_level(0, 130, 130, 10, 10)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(slide.read_level(0, 0, 0, 420, 128), noise[:128])


@pytest.mark.parametrize("codec", [zarr.codecs.BloscCodec(), None])
def test_a_cut_shard_is_an_error_of_the_tiles_behind(tmp_path, noise, codec):
    path = write_ome_zarr(
        tmp_path / "d", noise, "cyx", chunk=64, shard=256, compressors=codec
    )
    shard = path / "0/c/1/0/0"
    shard.write_bytes(shard.read_bytes()[:-1000])
    slide = open_slide(path)
    with pytest.raises(TileError, match="array 0"):
        slide.read_level(0, 200, 200, 10, 10)
    np.testing.assert_array_equal(
        slide.read_level(0, 256, 0, 164, 256), noise[:256, 256:]
    )


def test_copies_in_a_folder_a_zip_and_on_a_server_are_one_slide(tmp_path, noise):
    path = write_ome_zarr(tmp_path / "a.ome.zarr", noise)
    flat = zip_of(path, tmp_path / "a.ome.zarr.zip")
    # The ending may lie, and the folder itself may have been packed.
    nested = zip_of(path, tmp_path / "b.tif", inside="a.ome.zarr")
    with served(tmp_path) as url:
        slides = [open_slide(p) for p in (path, flat, nested, f"{url}/a.ome.zarr")]
        for slide in slides:
            assert slide.backend == "OME-Zarr" and slide.mpp == (0.5, 0.5)
            np.testing.assert_array_equal(whole(slide), noise)
        assert len({slide.fingerprint for slide in slides}) == 1
        for slide in slides:
            slide.close()
    other = open_slide(write_ome_zarr(tmp_path / "o", 255 - noise))
    assert other.fingerprint != slides[0].fingerprint


def test_a_server_that_has_no_such_slide_is_one_line(tmp_path):
    with served(tmp_path) as url, pytest.raises(SlideError) as error:
        open_slide(f"{url}/nothing.zarr")
    assert f"{url}/nothing.zarr: holds no zarr group" in str(error.value)
    with pytest.raises(SlideError, match="Check the network"):
        open_slide(f"{url}/gone.zarr")


def test_a_server_that_does_not_answer_is_said(tmp_path, noise):
    write_ome_zarr(tmp_path / "a", noise)
    with served(tmp_path) as url:
        pass
    with pytest.raises(SlideError, match=r"/a: its server cannot be reached \(.*Check"):
        open_slide(f"{url}/a")


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "its server refuses access"), (503, "its server answers with an error")],
)
def test_a_server_that_refuses_is_said(tmp_path, noise, monkeypatch, status, said):
    write_ome_zarr(tmp_path / "a", noise)
    monkeypatch.setattr(
        SimpleHTTPRequestHandler, "send_head", lambda self: self.send_error(status)
    )
    with served(tmp_path) as url, pytest.raises(SlideError, match=said):
        open_slide(f"{url}/a")


def test_a_server_that_fails_at_the_names_of_images_is_a_warning(
    tmp_path, noise, monkeypatch
):
    group = zarr.open_group(tmp_path / "c", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(tmp_path / "c" / "0", noise)
    send_head = SimpleHTTPRequestHandler.send_head

    def fail(self):
        if self.path.endswith("METADATA.ome.xml"):
            return self.send_error(503)
        return send_head(self)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "send_head", fail)
    with served(tmp_path) as url, open_slide(f"{url}/c") as slide:
        assert slide.mpp == (0.5, 0.5)
        (warning,) = slide.warnings
        assert warning.startswith("its server answers with an error (503")


def test_a_server_that_knows_no_byte_ranges_is_said(tmp_path, noise, monkeypatch):
    from napari_mcm.core.slides.backends.omezarr import tiles as omezarr_tiles

    monkeypatch.setattr(omezarr_tiles, "_PAUSES", (0.0,))
    write_ome_zarr(tmp_path / "s", noise, chunk=64, shard=256)
    with served(tmp_path) as url:
        slide = open_slide(f"{url}/s")
        with pytest.raises(TileError, match="sends whole files"):
            whole(slide)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("s3://bucket/a.zarr", r'pip install "napari-mcm\[remote\]"'),
        ("gs://bucket/a.zarr", "pip install gcsfs"),
        ("https://127.0.0.1:1/a.zarr", r'pip install "napari-mcm\[remote\]"'),
    ],
)
def test_what_a_server_needs_is_named(monkeypatch, url, advice):
    for name in ("s3fs", "gcsfs", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SlideError, match=advice):
        open_slide(url)


def test_a_tile_whose_server_went_away_is_an_error_of_that_tile(
    tmp_path, noise, monkeypatch
):
    from napari_mcm.core.slides.backends.omezarr import tiles as omezarr_tiles

    monkeypatch.setattr(omezarr_tiles, "_PAUSES", (0.0,))
    write_ome_zarr(tmp_path / "a", noise)
    with served(tmp_path) as url:
        slide = open_slide(f"{url}/a")
    with pytest.raises(TileError, match=url):
        whole(slide)


def test_threads_read_the_same_pixels(tmp_path, noise):
    slide = open_slide(write_ome_zarr(tmp_path / "a", noise, chunk=32))
    corners = [(x, y) for y in range(0, 260, 37) for x in range(0, 380, 41)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda at: slide.read_level(0, *at, 40, 40), corners))
    for (x, y), part in zip(corners, parts, strict=True):
        np.testing.assert_array_equal(part, noise[y : y + 40, x : x + 40])


def write_series(path: Path, images: dict[str, np.ndarray], version: str) -> Path:
    """Write several images as bioformats2raw does."""
    root = zarr.open_group(path, mode="w", zarr_format=2 if version < "0.5" else 3)
    for index, (name, image) in enumerate(images.items()):
        write_ome_zarr(path / str(index), image, version=version, mpp=None, name=name)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if version < "0.5" else {"ome": layout})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_largest_of_a_series_is_the_slide(tmp_path, noise, version):
    label, macro = noise[:50, :40], np.tile(noise, (2, 2, 1))
    images = {"label image": label, "": noise, "Macro": macro, "roi": noise[:99]}
    path = write_series(tmp_path / "s.zarr", images, version)
    slide = open_slide(path)
    np.testing.assert_array_equal(whole(slide), noise)
    assert set(slide.associated) == {"label", "macro"}
    np.testing.assert_array_equal(slide.associated_image("label"), label)
    assert any("1 more image(s) (3)" in warning for warning in slide.warnings)
    assert slide.stated_mpp is None


XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image Name="x"><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm" '
    'PhysicalSizeY="0.5"/></Image></OME>'
)


def test_ome_xml_gives_the_resolution_that_the_scale_lacks(tmp_path, noise):
    path = write_series(tmp_path / "s.zarr", {"": noise}, "0.4")
    (path / "OME").mkdir()
    (path / "OME/METADATA.ome.xml").write_text(XML)
    assert open_slide(path).mpp == (0.25, 0.5)
    bomb = '<!DOCTYPE OME [<!ENTITY a "aaaa">]>' + XML
    (path / "OME/METADATA.ome.xml").write_text(bomb)
    assert open_slide(path).stated_mpp is None


def test_an_image_in_the_group_0_of_a_bare_root_is_found(tmp_path, noise):
    zarr.open_group(tmp_path / "r", mode="w")
    write_ome_zarr(tmp_path / "r/0", noise)
    np.testing.assert_array_equal(whole(open_slide(tmp_path / "r")), noise)


def test_a_damaged_coarse_level_is_left_out(tmp_path, noise):
    path = write_ome_zarr(tmp_path / "a", noise, levels=3)
    (path / "1/zarr.json").write_text('{"zarr_format": 3, "sha')
    slide = open_slide(path)
    assert [level.size for level in slide.levels] == [(420, 300), (105, 75)]
    assert any("array 1" in warning for warning in slide.warnings)


def change_ome(path: Path, **changes: object) -> None:
    """Change what a file of version 0.5 says of its image."""
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0].update(changes)
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": [{"path": "../../etc"}]}, "lead out of the file"),
        ({"datasets": [{"path": "/etc"}]}, "lead out of the file"),
        ({"datasets": [{"path": "9"}]}, "array 9 cannot be opened"),
        ({"datasets": []}, "list no array"),
        ({"datasets": 7}, "multiscales metadata are damaged"),
        ({"axes": None}, "state no axes"),
        ({"axes": [{"name": a} for a in "tczab"]}, "not those of an image"),
        ({"axes": [{"name": a} for a in "czyx"]}, "5 dimensions, but 4 axes"),
    ],
)
def test_wrong_metadata_are_refused_in_one_line(tmp_path, noise, changes, message):
    path = write_ome_zarr(tmp_path / "a.zarr", noise)
    change_ome(path, **changes)
    assert_refused(path, message)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(SlideError, match=message) as error:
        open_slide(path, backend="OME-Zarr")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_other_pixels_are_refused_by_what_they_hold(tmp_path, noise):
    path = write_ome_zarr(tmp_path / "deep", noise, dtype=np.uint16)
    assert_refused(path, "holds uint16, not 8-bit RGB")
    five = np.dstack([noise, noise[..., :2]])
    assert_refused(write_ome_zarr(tmp_path / "five", five), "holds 5 channels")


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("shape", [1, 3, 1, 2**40, 420], "has a stated size of 420 x"),
        ("shape", [1, 3, 1, 0, 420], "has a stated size of 420 x 0"),
        ("chunks", [1, 3, 1, 0, 128], "is empty|cannot be opened"),
        ("chunks", [1, 3, 1, 2**15, 2**15], "too large to read one at a time"),
        ("compressor", {"id": "pickle", "protocol": 5}, "cannot be opened.*pickle"),
        (
            "filters",
            [{"id": "shuffle", "elementsize": 1}, {"id": "pickle", "protocol": 5}],
            "cannot be opened.*pickle",
        ),
    ],
)
def test_arrays_that_would_harm_are_refused(tmp_path, noise, member, value, message):
    path = write_ome_zarr(tmp_path / "a.zarr", noise, version="0.4")
    document = json.loads((path / "0/.zarray").read_text())
    (path / "0/.zarray").write_text(json.dumps(document | {member: value}))
    assert_refused(path, message)


def test_damaged_files_are_refused_in_one_line(tmp_path, noise):
    path = write_ome_zarr(tmp_path / "a.zarr", noise)
    packed = zip_of(path, tmp_path / "a.zip")
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(SlideError):
        open_slide(packed)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_ty')
    assert_refused(path, "metadata of group / cannot be read")
    (path / "zarr.json").unlink()
    assert backend_for(path) is None


def test_the_real_slide_equals_its_svs(shared_data, tmp_path):
    folder = shared_data / "slides/cmu1"
    slide = open_slide(folder / "CMU-1-Small-Region.ome.zarr")
    assert slide.mpp == (0.499, 0.499)
    svs = tifffile.imread(folder / "CMU-1-Small-Region.svs")
    np.testing.assert_array_equal(whole(slide), svs)
    assert slide.levels[1].downsample == pytest.approx((3.8676, 3.8633), abs=1e-4)
    assert any("state that level 1 is 2 times" in w for w in slide.warnings)
    assert set(slide.associated) == {"macro", "label"}
    copy = shutil.copytree(slide.path, tmp_path / "copy")
    assert open_slide(copy).fingerprint == slide.fingerprint


def test_opening_another_format_does_not_import_zarr(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.full((64, 64, 3), 200, np.uint8), tile=(64, 64))
    code = (
        "import sys; from napari_mcm.core.slides import open_slide; "
        f"open_slide({str(path)!r}, 0.5).read_level(0, 0, 0, 8, 8); "
        "sys.exit('zarr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
