"""Files that carry the structure of scanners' formats, written with tifffile and Pillow.

No scanner made them: they have the tags, page order and XML by which readers know the
format, over pixels that are known. What another reader makes of them is tested too.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def halved(image: Pixels, times: int = 1) -> Pixels:
    for _ in range(times):
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        pooled = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        image = np.rint(pooled.mean(axis=(1, 3))).astype(np.uint8)
    return image


def per_cm(mpp: float) -> dict[str, Any]:
    return {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}


def write_svs(
    path: Path, image: Pixels, mpp: float = 0.5, compression: int | str = "jpeg"
) -> Path:
    """Aperio: full size, thumbnail in strips, a level 4 times coarser, label, macro."""
    height, width = image.shape[:2]
    about = (
        f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] "
        f"(256x256) JPEG/RGB Q=90|AppMag = 20|MPP = {mpp}|Filename = J. Doe 1950|"
        "User = 0f3c|Date = 01/02/20|ScanScope ID = SS1234"
    )
    options: dict[str, Any] = {
        "photometric": "rgb",
        "compression": compression,
        "metadata": None,
    }
    if compression == "jpeg":
        options["photometric"] = "ycbcr"
    label = np.full((100, 120, 3), 200, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(256, 256), description=about, **options)
        small = halved(image, 3)
        plain = {"compression": None, "photometric": "rgb", "metadata": None}
        tiff.write(small, description="Aperio thumbnail", rowsperstrip=16, **plain)
        tiff.write(halved(image, 2), tile=(256, 256), description=about, **options)
        for kind, subfiletype in (("label", 1), ("macro", 9)):
            tiff.write(
                label,
                description=f"Aperio Image Library\r\n{kind} 120x100",
                subfiletype=subfiletype,
                rowsperstrip=16,
                **plain,
            )
    return path


def write_ndpi(path: Path, image: Pixels, mpp: float = 0.46, restart: int = 8) -> Path:
    """Hamamatsu: each level one JPEG, cut by restart markers every few MCUs."""
    macro = np.full((96, 256, 3), 222, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        for times in (0, 2):
            level = halved(image, times)
            data, starts = _restarting_jpeg(level, restart)
            _write_ndpi_page(tiff, level, data, 20.0 / 2**times, mpp * 2**times, starts)
        data, _ = _restarting_jpeg(macro, 0)
        _write_ndpi_page(tiff, macro, data, -1.0, 30.0, [])
    _widen_offsets(path)
    return path


def _widen_offsets(path: Path) -> None:
    """Move directories to the end, with the 64-bit offsets that NDPI has."""
    data = bytearray(path.read_bytes())
    at = struct.unpack_from("<I", data, 4)[0]
    directories = []
    while at:
        count = struct.unpack_from("<H", data, at)[0]
        end = at + 2 + 12 * count
        directories.append(bytes(data[at:end]))
        at = struct.unpack_from("<I", data, end)[0]
    place, slot = len(data), 4
    struct.pack_into("<Q", data, slot, place)
    for directory in directories:
        count = struct.unpack_from("<H", directory)[0]
        slot = place + len(directory)
        # After the next directory's offset come the upper halves of all values.
        data += directory + bytes(8 + 4 * count)
        place = len(data)
        struct.pack_into("<Q", data, slot, place)
    struct.pack_into("<Q", data, slot, 0)
    path.write_bytes(data)


def _write_ndpi_page(
    tiff: tifffile.TiffWriter,
    image: Pixels,
    data: bytes,
    lens: float,
    mpp: float,
    starts: Sequence[int],
) -> None:
    extra: list[Any] = [
        (271, 2, None, "Hamamatsu", True),
        (272, 2, None, "NanoZoomer", True),
        (65420, 4, 1, 1, True),
        (65421, 11, 1, lens, True),
        (65422, 9, 1, 0, True),
        (65423, 9, 1, 0, True),
        (65424, 9, 1, 0, True),
    ]
    if starts:
        extra.append((65426, 4, len(starts), list(starts), True))
    tiff.write(
        iter([data]),
        shape=image.shape,
        dtype=np.uint8,
        photometric="ycbcr",
        compression="jpeg",
        rowsperstrip=image.shape[0],
        extratags=extra,
        metadata=None,
        **per_cm(mpp),
    )


def _restarting_jpeg(image: Pixels, blocks: int) -> tuple[bytes, list[int]]:
    """Encode as JPEG; also tell where the data after each restart marker begin."""
    file = io.BytesIO()
    options = {"restart_marker_blocks": blocks} if blocks else {}
    Image.fromarray(image).save(file, "JPEG", quality=90, subsampling=0, **options)
    data = file.getvalue()
    at = data.index(b"\xff\xda")
    first = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
    starts, i = [first], first
    while (i := data.find(b"\xff", i)) >= 0:
        if 0xD0 <= data[i + 1] <= 0xD7:
            starts.append(i + 2)
        i += 2
    return data, starts


def write_scn(path: Path, image: Pixels, mpp: float = 0.5) -> Path:
    """Leica: BigTIFF, a macro and a scanned region, described by XML in nanometres."""
    macro = np.full((150, 250, 3), 230, np.uint8)
    levels = [image, halved(image, 2)]
    height, width = image.shape[:2]

    def dimensions(pages: list[Pixels], first: int) -> str:
        return "".join(
            f'<dimension sizeX="{p.shape[1]}" sizeY="{p.shape[0]}" r="{r}" '
            f'ifd="{first + r}"/>'
            for r, p in enumerate(pages)
        )

    def one(
        name: str, pages: list[Pixels], first: int, nm: tuple[float, float], at: int
    ) -> str:
        h, w = pages[0].shape[:2]
        return (
            f'<image name="{name}" uuid="urn:uuid:{first}">'
            "<creationDate>2011-05-26T07:39:33.14Z</creationDate>"
            '<device model="Leica SCN400" version="1.0"/>'
            f'<pixels sizeX="{w}" sizeY="{h}">{dimensions(pages, first)}</pixels>'
            f'<view sizeX="{nm[0]:.0f}" sizeY="{nm[1]:.0f}" offsetX="{at}" '
            f'offsetY="{at}" spacingZ="0"/>'
            "<scanSettings><objectiveSettings><objective>20</objective>"
            "</objectiveSettings><illuminationSettings><numericalAperture>0.4"
            "</numericalAperture><illuminationSource>brightfield"
            "</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    region = one("image_0", levels, 1, (width * mpp * 1e3, height * mpp * 1e3), 5000)
    whole = one("macro", [macro], 0, (26_000_000.0, 15_600_000.0), 0)
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/'
        '10/01" uuid="urn:uuid:0"><collection name="SCN" uuid="urn:uuid:9" '
        'sizeX="26000000" sizeY="15600000"><barcode>UGF0aWVudA==</barcode>'
        f"{whole}{region}</collection></scn>"
    )
    options: dict[str, Any] = {
        "tile": (256, 256),
        "photometric": "ycbcr",
        "compression": "jpeg",
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(macro, description=xml, **options)
        for level in levels:
            tiff.write(level, **options)
    return path


def write_bif(path: Path, image: Pixels, mpp: float = 0.25, overlap: int = 0) -> Path:
    """Ventana: a label, then levels, whose first holds iScan XML and tile joints."""
    label = np.full((256, 256, 3), 210, np.uint8)
    rows, columns = -(-image.shape[0] // 256), -(-image.shape[1] // 256)
    joint = (
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="RIGHT" Tile1="1" '
        f'Tile2="2" OverlapX="{overlap}" OverlapY="0"/>'
    )
    scan = f'<iScan Magnification="40" ScanRes="{mpp}" UnitNumber="2000515"/>'
    encode = (
        '<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" Width="256" '
        f'Height="256" NumRows="{rows}" NumCols="{columns}">{joint}</ImageInfo>'
        "</SlideStitchInfo></EncodeInfo>"
    )
    options: dict[str, Any] = {
        "photometric": "ycbcr",
        "compression": "jpeg",
        "metadata": None,
        "tile": (256, 256),
        "software": "ScanOutputManager 1.1.0.15854",
    }

    def xmp(text: str) -> list[Any]:
        return [(700, 1, len(text), text.encode(), True)]

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            label,
            description="Label_Image",
            extratags=xmp(f"<Metadata>{scan}</Metadata>"),
            **options,
        )
        for number, times in enumerate((0, 1, 2)):
            tiff.write(
                halved(image, times),
                description=f"level={number} mag={40 / 2**number:g} quality=90",
                extratags=xmp(encode) if number == 0 else [],
                **options,
            )
    return path


def write_qptiff(path: Path, image: Pixels, mpp: float = 0.5) -> Path:
    """Akoya: full size, thumbnail, coarser levels, macro, label."""
    xml = (
        '<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription>'
        "<DescriptionVersion>2</DescriptionVersion><ImageType>{}</ImageType>"
        "<Objective>20x</Objective><SlideID>J. Doe</SlideID>"
        "</PerkinElmer-QPI-ImageDescription>"
    )
    options: dict[str, Any] = {
        "photometric": "ycbcr",
        "compression": "jpeg",
        "metadata": None,
        "software": "PerkinElmer-QPI",
    }
    small = np.full((80, 100, 3), 190, np.uint8)
    with tifffile.TiffWriter(path) as tiff:

        def page(pixels: Pixels, kind: str, tiled: bool, scale: float = 1) -> None:
            layout = {"tile": (256, 256)} if tiled else {"rowsperstrip": 16}
            about = xml.format(kind)
            tiff.write(
                pixels, description=about, **layout, **options, **per_cm(mpp * scale)
            )

        page(image, "FullResolution", True)
        page(halved(image, 3), "Thumbnail", False, 8)
        page(halved(image), "ReducedResolution", True, 2)
        page(halved(image, 2), "ReducedResolution", True, 4)
        page(small, "Overview", False)
        page(small, "Label", False)
    return path


def write_philips(path: Path, image: Pixels, mpp: float = 0.25) -> Path:
    """Philips: levels padded to whole tiles, their true size in the XML's spacing."""

    def attribute(name: str, value: str) -> str:
        return f'<Attribute Name="{name}" PMSVR="IString">{value}</Attribute>'

    def spacing(scale: int) -> str:
        mm = f"{mpp * scale / 1000:.9f}"
        return attribute("DICOM_PIXEL_SPACING", f'"{mm}" "{mm}"')

    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(scale)}</DataObject>'
        for scale in (1, 2, 4)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        f"{attribute('DICOM_MANUFACTURERS_MODEL_NAME', 'UFS Scanner')}"
        f"{attribute('PIM_DP_UFS_BARCODE', 'Sm9obiBEb2U=')}"
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        f"{attribute('PIM_DP_IMAGE_TYPE', 'WSI')}{spacing(1)}"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>'
        f"{levels}</Array></Attribute></DataObject></Array></Attribute></DataObject>"
    )
    options: dict[str, Any] = {
        "tile": (256, 256),
        "photometric": "ycbcr",
        "compression": "jpeg",
        "metadata": None,
        "software": "Philips DP v1.0",
    }
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for times in (0, 1, 2):
            level = halved(image, times)
            pad = [(0, -side % 256) for side in level.shape[:2]]
            padded = np.pad(level, [*pad, (0, 0)], constant_values=255)
            tiff.write(
                padded,
                description=xml if times == 0 else "",
                subfiletype=int(times > 0),
                **options,
            )
        label = np.full((64, 64, 3), 200, np.uint8)
        tiff.write(
            label, description="Label", rowsperstrip=64, **{**options, "tile": None}
        )
    return path
