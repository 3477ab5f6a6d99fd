"""The tables of docs/formats.md, made by opening the files and comparing their pixels.

    python -m tests.core.slides.formats_report docs/formats.md [MUTATIONS.json]

``MUTATIONS.json`` is what the mutation tests write; without it that table stays as it is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import openslide
import tifffile

from napari_mcm.core.slides import Slide, open_slide
from tests.core.conftest import stained_image
from tests.core.slides import scanner_files as files
from tests.core.slides import vendor_samples

Read = Callable[[int, int, int, int], np.ndarray]
REGION = 400
WRITTEN: dict[str, tuple[str, Callable[..., Path], str]] = {
    "Aperio SVS, JPEG 2000": (
        "slide.svs",
        lambda path, image: files.write_svs(path, image, compression=33005),
        "tifffile",
    ),
    "Hamamatsu NDPI": ("slide.ndpi", files.write_ndpi, "Pillow (JPEG), tifffile"),
    "Leica SCN": ("slide.scn", files.write_scn, "tifffile"),
    "Ventana BIF, no overlap": ("slide.bif", files.write_bif, "tifffile"),
    "Akoya QPTIFF": ("slide.qptiff", files.write_qptiff, "tifffile"),
    "Philips TIFF": ("slide.tiff", files.write_philips, "tifffile"),
}


def real_table(folder: Path) -> list[str]:
    """One row for each slide of the folder of real data."""
    rows = [
        "| file | read by | levels | µm per pixel | compared with | pixels |",
        "|---|---|---|---|---|---|",
    ]
    for path in real_slides(folder):
        with open_slide(path) as slide:
            name, read = independent(path, slide)
            rows.append(
                f"| `{path.relative_to(folder)}` | {slide.backend} | {_levels(slide)} | "
                f"{_mpp(slide)} | {name} | {_difference(slide, read)} |"
            )
    return rows


def written_table() -> list[str]:
    """One row for each format that was only tried on files written for it."""
    rows = [
        "| format | written with | levels | µm per pixel | compared with | pixels |",
        "|---|---|---|---|---|---|",
    ]
    image = stained_image(1024, 704)
    with tempfile.TemporaryDirectory() as folder:
        for label, (name, write, writer) in WRITTEN.items():
            path = write(Path(folder) / name, image)
            with open_slide(path) as slide:
                other, read = independent(path, slide)
                rows.append(
                    f"| {label} | {writer} | {_levels(slide)} | {_mpp(slide)} | {other} | "
                    f"{_difference(slide, read)} |"
                )
        path = vendor_samples.write_vms(Path(folder), image)
        with open_slide(path) as slide:
            rows.append(
                f"| Hamamatsu VMS | Pillow (JPEG) | {_levels(slide)} | {_mpp(slide)} | "
                "none (read by OpenSlide itself) | opens |"
            )
    return rows


def mutation_table(report: Path) -> list[str]:
    """One row for each family of formats that was damaged."""
    rows = [
        "| family | files | read | read, some tiles damaged | refused in one line | "
        "anything else | slowest |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, tally in json.loads(report.read_text()).items():
        outcomes = tally["outcomes"]
        kinds = ("read", "read, with damaged tiles", "refused", "not one of our errors")
        counts = " | ".join(str(outcomes.get(kind, 0)) for kind in kinds)
        rows.append(
            f"| {family} | {tally['files']} | {counts} | {tally['slowest_s']:.1f} s |"
        )
    return rows


def real_slides(folder: Path) -> list[Path]:
    """Every slide of the real data: files, and folders that are one slide."""
    found: list[Path] = []
    for group in sorted(folder.iterdir()):
        for path in sorted(group.iterdir()):
            slide_folder = path.is_dir()
            name = path.name.lower()
            if slide_folder or name.endswith((".svs", ".tif", ".tiff", ".dcm")):
                found.append(path)
    return found


def independent(path: Path, slide: Slide) -> tuple[str, Read]:
    """Choose another reader for a file, and give how it reads level 0."""
    if slide.backend == "OME-Zarr":
        twin = path.with_name(path.name.replace(".ome.zarr", ".svs"))
        whole = tifffile.imread(twin)
        return f"tifffile, `{twin.name}`", _from_array(whole)
    inside = sorted(path.glob("*.dcm"))[0] if path.is_dir() else path
    try:
        other = openslide.OpenSlide(inside)
        if other.level_count >= sum(lv.stored for lv in slide.levels) - 1:
            x0, y0 = (
                int(other.properties.get(f"openslide.bounds-{a}", 0)) for a in "xy"
            )

            def read(x: int, y: int, width: int, height: int) -> np.ndarray:
                region = other.read_region((x + x0, y + y0), 0, (width, height))
                return np.asarray(region.convert("RGB"))

            return "OpenSlide", read
    except openslide.OpenSlideError:
        pass
    if slide.backend == "DICOM":
        from wsidicom import WsiDicom

        dicom = WsiDicom.open(inside)
        return "wsidicom", lambda x, y, w, h: np.asarray(
            dicom.read_region((x, y), dicom.levels[0].level, (w, h)).convert("RGB")
        )
    with tifffile.TiffFile(path) as tiff:
        pages = [p for p in tiff.pages if (p.imagewidth, p.imagelength) == slide.size]
        return "tifffile, plain decode", _from_array(pages[0].asarray())


def _from_array(whole: np.ndarray) -> Read:
    return lambda x, y, w, h: whole[y : y + h, x : x + w, :3]


def _levels(slide: Slide) -> str:
    return ", ".join(
        f"{level.size[0]}×{level.size[1]}" for level in slide.levels if level.stored
    )


def _mpp(slide: Slide) -> str:
    if slide.stated_mpp is None:
        return "not stated"
    return " × ".join(dict.fromkeys(f"{m:.4g}" for m in slide.stated_mpp))


def _difference(slide: Slide, read: Read) -> str:
    """Compare regions spread over level 0; only what both readers cover."""
    worst, width, height = 0, *slide.size
    side = min(REGION, width, height)
    for part in np.linspace(0, 1, 9):
        x, y = int(part * (width - side)), int((part * 5 % 1) * (height - side))
        mine = slide.read_level(0, x, y, side, side).astype(int)
        worst = max(worst, int(abs(mine - read(x, y, side, side)).max()))
    return (
        "identical" if worst == 0 else f"within {worst} grey level{'s' * (worst > 1)}"
    )


def put(text: str, name: str, rows: Sequence[str]) -> str:
    """Replace the table of a name in the text of the page."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, rest = text.split(start)
    return f"{head}{start}{chr(10).join(rows)}\n{rest[rest.index(end) :]}"


def table_of(text: str, name: str) -> Iterable[str]:
    """Give the rows of a table as they stand on the page."""
    inside = text.split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0]
    return inside.strip().splitlines()


def main() -> None:
    page = Path(sys.argv[1])
    text = page.read_text()
    data = Path(__file__).parents[4] / "shared" / "data" / "slides"
    text = put(text, "written", written_table())
    if data.is_dir():
        text = put(text, "real", real_table(data))
    if len(sys.argv) > 2:
        text = put(text, "mutations", mutation_table(Path(sys.argv[2])))
    page.write_text(text)


if __name__ == "__main__":
    main()
