"""Files that only OpenSlide reads, or that it reads too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def write_vms(folder: Path, image: NDArray[np.uint8], name: str = "slide.vms") -> Path:
    """Write an image as Hamamatsu VMS: a list of names, and JPEGs cut by markers.

    Its width and height must be multiples of 16.
    """
    # OpenSlide finds a tile by the restart markers: one every 16 blocks of 8 px.
    options = {"quality": 95, "subsampling": 0, "restart_marker_blocks": 16}
    Image.fromarray(image).save(folder / "slide.jpg", **options)
    small = Image.fromarray(image[::8, ::8])
    small.save(folder / "map.jpg", **options)
    Image.fromarray(image[::4, ::4]).save(folder / "macro.jpg", quality=95)
    height, width = image.shape[:2]
    lines = [
        "[Virtual Microscope Specimen]",
        "NoLayers=1",
        "NoJpegColumns=1",
        "NoJpegRows=1",
        "ImageFile=slide.jpg",
        "MapFile=map.jpg",
        "MacroImage=macro.jpg",
        "SourceLens=20",
        f"PhysicalWidth={width * 500}",
        f"PhysicalHeight={height * 250}",
    ]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def write_svs(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an image and its half in Aperio's layout, tiles of 128 px in JPEG."""
    options = {
        "tile": (128, 128),
        "compression": "jpeg",
        "photometric": "rgb",
        "metadata": None,
    }
    height, width = image.shape[:2]
    text = f"Aperio Image Library v11.2.1 \r\n{width}x{height} JPEG/RGB Q=75"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, description=f"{text}|AppMag = 20|MPP = 0.5", **options)
        tiff.write(image[::2, ::2], description=text, **options)
    return path


def damage_tile(path: Path, index: int) -> None:
    """Overwrite one tile of the first page."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * length)


_SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="c" sizeX="{across}" sizeY="{down}"><image name="main">
<creationDate>2020</creationDate><device model="m" version="1"/>
<pixels sizeX="{w}" sizeY="{h}"><dimension sizeX="{w}" sizeY="{h}" r="0" ifd="0"/>
<dimension sizeX="{half_w}" sizeY="{half_h}" r="1" ifd="1"/></pixels>
<view sizeX="{view_w}" sizeY="{view_h}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image></collection></scn>"""


def write_scn(
    path: Path,
    image: NDArray[np.uint8],
    corner: tuple[int, int],
    glass: tuple[int, int],
) -> Path:
    """Write an image in Leica's layout: scanned at `corner` of a glass slide."""
    height, width = image.shape[:2]
    nm = 500
    text = _SCN.format(
        across=glass[0] * nm, down=glass[1] * nm, w=width, h=height,
        half_w=width // 2, half_h=height // 2, view_w=width * nm, view_h=height * nm,
        x=corner[0] * nm, y=corner[1] * nm,
    )  # fmt: skip
    options = {
        "tile": (128, 128),
        "compression": "jpeg",
        "photometric": "rgb",
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(image, description=text, **options)
        tiff.write(image[::2, ::2], **options)
    return path
