"""The verbs that look at slides: info, grid, sample, and naming slides at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from matplotlib.image import imread
from PIL import Image

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.find import find_slides
from tests.cli.conftest import Call
from tests.core.conftest import stained_image
from tests.core.slides.scanner_files import write_svs


def test_info_for_programs(call: Call, slide: Path) -> None:
    answer = call("info", slide, "--json", "--patch-size", "64", "--mpp", "1")
    assert answer.status == 0
    info = answer.json
    assert (info["width"], info["height"]) == (512, 512)
    assert info["mpp"] == [0.5, 0.5]
    assert info["backend"] == "tifffile"
    assert info["levels"][0] == {
        "width": 512,
        "height": 512,
        "downsample": [1.0, 1.0],
        "tile": [128, 128],
        "stored": True,
    }
    assert info["plan"]["patch_size_level0"] == [128.0, 128.0]
    assert answer.out.count("\n") == 1


def test_info_tells_out_of_how_many_tiles_a_patch_is_read(
    call: Call, slide: Path
) -> None:
    words = ("info", slide, "--patch-size", "128", "--mpp", "0.5")
    # Of 128 positions to a tile, one takes a single column and all others two.
    tiles = ((127 * 2 + 1) / 128) ** 2
    assert call(*words, "--json").json["plan"]["tiles"] == pytest.approx(
        tiles, abs=0.01
    )
    assert "out of 3.97 tiles each" in call(*words).out


def test_label_images_are_written_only_where_that_is_asked_for(
    call: Call, tmp_path: Path
) -> None:
    slide = write_svs(tmp_path / "scan.svs", stained_image(1024, 704))
    told = call("info", slide)
    assert "thumbnail, label, macro" in told.out
    assert "Doe" not in told.out + call("info", slide, "--json").out
    assert not list(tmp_path.glob("*.png"))
    call("info", slide, "--images", tmp_path / "images")
    files = sorted(f.name for f in (tmp_path / "images").iterdir())
    assert files == ["scan.label.png", "scan.macro.png", "scan.thumbnail.png"]


def test_resolutions_come_from_a_table(call: Call, slide: Path, tmp_path: Path) -> None:
    table = tmp_path / "mpp.csv"
    table.write_text(f"slide,mpp\nother.svs,0.1\n{slide.name},0.25\n")
    answer = call("info", slide, "--mpp-override", table, "--json")
    assert answer.json["mpp"] == [0.25, 0.25]
    table.write_text("slide,mpp\na.svs,quarter\n")
    wrong = call("info", slide, "--mpp-override", table)
    assert wrong.status == 2
    assert "line 2 lacks a slide or a number" in wrong.error


def test_one_backend_can_be_asked_for(call: Call, slide: Path) -> None:
    answer = call("info", slide, "--backend", "picture")
    assert answer.status == 1
    assert (
        "Use one of tifffile, OME-Zarr" in call("info", slide, "--backend", "x").error
    )
    assert call("info", slide, "--backend", "TiffFile").status == 0


def test_info_for_people(call: Call, slide: Path) -> None:
    out = call("info", slide).out
    assert "512 x 512 px = 0.26 x 0.26 mm" in out
    assert "0.5 µm per pixel" in out
    assert "read from level 0, as stored" in out


def test_info_says_when_patches_would_be_enlarged(call: Call, slide: Path) -> None:
    answer = call("info", slide, "--mpp", "0.25")
    assert answer.status == 0
    assert "--allow-upsampling" in answer.out


def test_info_without_a_resolution_says_how_to_give_one(
    call: Call, slide_without_mpp: Path
) -> None:
    answer = call("info", slide_without_mpp)
    assert answer.status == 0
    assert "--mpp-override" in answer.out
    assert call("info", slide_without_mpp, "--json").json["mpp"] is None
    given = call("info", slide_without_mpp, "--mpp-override", "0.25", "--json").json
    assert given["mpp"] == [0.25, 0.25]


def test_grid_counts_patches_and_draws_them(
    call: Call, slide: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "grid.png"
    answer = call(
        *("grid", slide, "--patch-size", "64", "--tissue-mpp", "4"),
        *("--min-object-um", "20", "--max-hole-um", "20", "--out", picture, "--json"),
    )
    assert answer.status == 0
    assert answer.json["patches"] == 32  # a disk on 8 x 8 patches
    assert answer.json["tissue_fraction"] == pytest.approx(0.55, abs=0.03)
    assert answer.json["file"] == str(picture)
    assert min(imread(picture).shape[:2]) > 300


def test_grid_refuses_a_slide_without_a_resolution(
    call: Call, slide_without_mpp: Path
) -> None:
    answer = call("grid", slide_without_mpp)
    assert answer.status == 1
    assert "--mpp-override" in answer.error


def test_grid_refuses_to_enlarge_unless_told(call: Call, slide: Path) -> None:
    words = ("grid", slide, "--mpp", "0.25", "--json")
    refused = call(*words)
    assert refused.status == 1
    assert "--allow-upsampling" in refused.error
    assert call(*words, "--allow-upsampling").status == 0


def test_grid_refuses_other_pictures(call: Call, slide: Path, tmp_path: Path) -> None:
    answer = call("grid", slide, "--out", tmp_path / "grid.doc")
    assert answer.status == 2
    assert ".png, .pdf, .svg" in answer.error


def test_sample_writes_a_cohort(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    answer = call("sample", "--out", out, "--slides", "1", "--size", "512", "--json")
    assert answer.status == 0
    (written,) = answer.json["slides"]
    assert Path(written).is_file()
    assert Path(answer.json["cohort"]).name == "cohort.csv"
    assert "Generating slides" in answer.err


def test_sample_wants_to_know_where(call: Call) -> None:
    answer = call("sample")
    assert answer.status == 2
    assert answer.error == "error: --out: is missing"


def test_folders_stand_for_the_slides_in_them(slide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("b.svs", "a.ome.tif", "notes.txt", ".part-1.tif", "C.TIFF"):
        (folder / name).touch()
    shutil.copy(slide, folder / "scan.001")
    Image.new("RGB", (300, 300)).save(folder / "thumbnail.png")
    (folder / "b.features.zarr").mkdir()
    names = [path.name for path in find_slides([folder, folder / "b.svs"])]
    assert names == ["C.TIFF", "a.ome.tif", "b.svs", "scan.001"]
    assert find_slides([folder / "thumbnail.png"]) == (folder / "thumbnail.png",)


def test_a_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SlideError, match=r"cannot be read \(Permission denied\)\. Ask"):
        find_slides([tmp_path])


def test_a_folder_without_slides_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="holds no slides of a known format"):
        find_slides([tmp_path])
