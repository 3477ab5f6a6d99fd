"""Slides as layers: resolution, levels, and files that are none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.utils.notifications import notification_manager

from napari_mcm.core.errors import SlideError
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.reader import get_reader, read_or_explain, read_slide
from tests.viewer.conftest import MPP, finish, wait_until, write_slide


def test_a_slide_becomes_a_layer_in_microns(viewer: Any, slide_path: Path) -> None:
    (layer,) = viewer.open(slide_path, plugin="napari-mcm")
    assert layer.rgb and layer.multiscale
    assert layer.level_shapes[:, :2].tolist() == [[1000, 1200], [500, 600]]
    np.testing.assert_allclose(layer.scale, (MPP, MPP), rtol=1e-4)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    assert layer.axis_labels == ("y", "x")
    assert viewer.canvas.overlays.scale_bar.visible is False


def test_the_layer_knows_its_file(slide_path: Path, viewer: Any) -> None:
    (layer,) = viewer.open(slide_path, plugin="napari-mcm")
    metadata = SlideMetadata.of_layer(layer)
    assert metadata is not None
    assert Path(metadata.path) == slide_path and metadata.size == (1200, 1000)


def test_without_a_resolution_the_world_is_in_pixels(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "unknown.tif", mpp=None)
    ((_, kwargs, _),) = read_slide(path)
    assert "scale" not in kwargs and "units" not in kwargs
    ((_, kwargs, _),) = read_slide(path, mpp=0.25)
    assert kwargs["scale"] == (0.25, 0.25)


def test_what_is_no_slide_is_left_to_others(tmp_path: Path) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("not a slide")
    assert get_reader(text) is None
    assert get_reader(tmp_path / "missing.svs") is None
    assert get_reader(tmp_path) is None
    assert get_reader([str(text), str(text)]) is None


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slide(tmp_path / "slide.tif")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("os.access", lambda *_: False)
    read = get_reader(path)
    assert read is not None
    with pytest.raises(SlideError, match=r"cannot be read \(Permission denied\)"):
        read(path)


def write_zarr(path: Path) -> Path:
    """Write an OME-Zarr 0.4 of 300 × 200 px at 0.5 µm per pixel."""
    zarr = pytest.importorskip("zarr")
    image = np.random.default_rng(0).integers(0, 255, (3, 200, 300), np.uint8)
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=image, chunks=(3, 128, 128))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": datasets}
    ]
    return path


def test_a_folder_can_be_a_slide(viewer: Any, tmp_path: Path) -> None:
    (layer,) = viewer.open(write_zarr(tmp_path / "a.ome.zarr"), plugin="napari-mcm")
    assert layer.data[0].shape == (200, 300, 3)
    np.testing.assert_allclose(layer.scale, (0.5, 0.5))


def test_an_archive_can_be_a_slide(viewer: Any, tmp_path: Path) -> None:
    folder = write_zarr(tmp_path / "a.ome.zarr")
    archive = shutil.make_archive(str(folder), "zip", folder)
    (layer,) = viewer.open(archive, plugin="napari-mcm")
    assert layer.data[0].shape == (200, 300, 3)


@pytest.mark.parametrize(
    "name", ["cmu1/CMU-1-Small-Region_dicom", "cmu1/CMU-1-Small-Region.ome.zarr"]
)
def test_real_folders_open(viewer: Any, name: str) -> None:
    path = Path(__file__).parents[3] / "shared" / "data" / "slides" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    if "dicom" in name:
        pytest.importorskip("wsidicom")
    (layer,) = viewer.open(path, plugin="napari-mcm")
    assert layer.data[0].shape == (2967, 2220, 3)
    np.testing.assert_allclose(layer.scale, (0.499, 0.499), rtol=1e-3)
    assert np.ptp(layer.data[-1][..., 0]) > 100


def test_other_folders_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert get_reader(tmp_path) is None


def test_what_only_openslide_knows_is_not_left_to_napari(tmp_path: Path) -> None:
    path = tmp_path / "a.mrxs"
    path.write_bytes(b"\xff\xd8\xff")
    assert get_reader(path) is read_or_explain


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truncated.svs", b"II*\x00\x08\x00\x00\x00"),
        ("empty.ndpi", b""),
        ("renamed.scn", b"not a slide at all"),
        ("short.tif", b"II*\x00\xff\xff\x00\x00"),
    ],
)
def test_a_refused_file_says_why_through_the_file_menu(
    viewer: Any, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with notification_manager:
        notification_manager.records.clear()
        try:
            viewer.window._qt_viewer._qt_open([str(path)], stack=False, plugin=None)
        except Exception as error:  # noqa: BLE001 - napari's own, which it shows, too
            assert type(error).__module__.startswith("napari")
        shown = [str(one.message) for one in notification_manager.records]
    reasons = [text for text in shown if name in text]
    assert reasons and "\n" not in reasons[0], shown
    # The reason, not that a plugin refused it.
    assert "plugin" not in reasons[0] and len(reasons[0]) > len(str(path)) + 10
    assert not viewer.layers


def cut_short(source: Path, to: Path) -> Path:
    """Write a copy that ends within the third of the four rows of the finest tiles."""
    with tifffile.TiffFile(source) as tiff:
        end = tiff.pages[0].dataoffsets[12]
    to.write_bytes(source.read_bytes()[:end])
    return to


def test_a_truncated_slide_says_so_in_the_window(viewer: Any, tmp_path: Path) -> None:
    # Of one level: the page of a second one would lie behind the cut.
    plain = tmp_path / "plain.tif"
    image = np.random.default_rng(0).integers(0, 255, (1000, 1200, 3), np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "resolutionunit": 3}
    tifffile.imwrite(plain, image, resolution=(2e4, 2e4), **options)
    path = cut_short(plain, tmp_path / "part.tif")
    expected = "part.tif is truncated: 8 of 20 tiles are missing. Copy the file again."
    with notification_manager:
        notification_manager.records.clear()
        (layer,) = viewer.open(path, plugin="napari-mcm")
        shown = [str(one.message) for one in notification_manager.records]
    assert shown == [expected]
    _, dock = viewer.window.add_plugin_dock_widget("napari-mcm", "Similarity")
    assert dock.sections["slide"].sentence.text() == expected
    # What is there is seen, also in the small level that napari draws first.
    coarse = np.asarray(layer.data[-1])
    assert len(layer.data) == 2 and (coarse[384:] == 128).all()
    assert (coarse[256:, 256:] == 128).all()
    assert not (coarse[:384, :256] == 128).all(axis=-1).any()
    dock.first.encoder.setCurrentText("offline:efficientnet_lite0")
    assert not dock.first.compute.isEnabled()
    assert "truncated" in dock.first.compute.toolTip()
    wait_until(lambda: "the file of the slide is truncated" in dock.first.sentence)
    finish(dock)


def test_a_look_reads_the_head_of_a_file_and_no_pixel(
    slide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the slide was opened")

    families = ("tiff", "omezarr", "dicom", "openslide")
    for backend in (*(f"{name}.backend" for name in families), "image"):
        module = import_module(f"napari_mcm.core.slides.backends.{backend}")
        closed = replace(module.BACKEND, open=refuse)
        monkeypatch.setattr(module, "BACKEND", closed)
    assert get_reader(slide_path) is read_or_explain
    assert get_reader(tmp_path) is None


def test_a_damaged_slide_is_told_in_one_line(viewer: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.svs"
    path.write_bytes(b"II*\0" + b"\xff" * 40)
    with pytest.raises(SlideError, match="cut.svs") as caught:
        viewer.open(path, plugin="napari-mcm")
    assert "\n" not in str(caught.value)
