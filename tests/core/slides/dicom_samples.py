"""DICOM whole-slide images, as small as the standard allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

SLIDE_CLASS = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
TILE = 128


def write_dicom_slide(
    folder: Path,
    image: NDArray[np.uint8],
    mpp: tuple[float, float] = (0.5, 0.25),
    levels: int = 2,
    study: str | None = None,
    jpeg: bool = False,
    profile: bytes | None = None,
) -> Path:
    """Write an image, its quarters, a label and an overview, a file each."""
    folder.mkdir(exist_ok=True)
    uids = [study or generate_uid(), generate_uid(), generate_uid()]
    for level in range(levels):
        step = 4**level
        write_dicom(
            folder / f"{uids[1]}.{level}.dcm", image[::step, ::step], uids,
            ("ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"),
            (mpp[0] * step, mpp[1] * step), jpeg, profile,
        )  # fmt: skip
    for kind, part in (("LABEL", image[:TILE, :TILE]), ("OVERVIEW", image[::4, ::4])):
        write_dicom(
            folder / f"{uids[1]}.{kind}.dcm", part, uids,
            ("ORIGINAL", "PRIMARY", kind, "NONE"), (20.0, 20.0),
        )  # fmt: skip
    return folder


def write_dicom(
    path: Path,
    image: NDArray[np.uint8],
    uids: list[str],
    kind: tuple[str, ...],
    mpp: tuple[float, float],
    jpeg: bool = False,
    profile: bytes | None = None,
) -> None:
    """Write one image, its tiles in rows from the upper left."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SLIDE_CLASS
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = SLIDE_CLASS
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    (
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
        dataset.FrameOfReferenceUID,
    ) = uids
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "secret-7"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Maker", "Model"
    dataset.ImageType = list(kind)
    _describe_pixels(dataset, image, jpeg)
    _describe_space(dataset, image, mpp)
    _describe_optics(dataset, profile)
    frames = [tile.tobytes() for tile in _tiles(image)]
    if jpeg:
        frames = [_as_jpeg(tile) for tile in _tiles(image)]
        dataset.PixelData = encapsulate(frames)
    else:
        dataset.PixelData = b"".join(frames)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def _describe_pixels(dataset: Dataset, image: NDArray[np.uint8], jpeg: bool) -> None:
    height, width = image.shape[:2]
    dataset.Rows = dataset.Columns = TILE
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = width, height
    dataset.NumberOfFrames = -(-width // TILE) * -(-height // TILE)
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "YBR_FULL_422" if jpeg else "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.LossyImageCompression = "01" if jpeg else "00"
    dataset.BurnedInAnnotation = "NO"
    dataset.SpecimenLabelInImage = "NO"
    dataset.FocusMethod = "AUTO"
    dataset.ExtendedDepthOfField = "NO"
    dataset.VolumetricProperties = "VOLUME"


def _describe_space(
    dataset: Dataset, image: NDArray[np.uint8], mpp: tuple[float, float]
) -> None:
    height, width = image.shape[:2]
    measures, kind = Dataset(), Dataset()
    # Rows first: the distance from row to row is along y.
    measures.PixelSpacing = [mpp[1] / 1000, mpp[0] / 1000]
    measures.SliceThickness = 0.001
    kind.FrameType = list(dataset.ImageType)
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.WholeSlideMicroscopyImageFrameTypeSequence = Sequence([kind])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.ImagedVolumeWidth = width * mpp[0] / 1000
    dataset.ImagedVolumeHeight = height * mpp[1] / 1000
    dataset.ImagedVolumeDepth = 0.001
    dataset.TotalPixelMatrixFocalPlanes = 1
    dataset.NumberOfOpticalPaths = 1
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = 0
    origin.YOffsetInSlideCoordinateSystem = 0
    dataset.TotalPixelMatrixOriginSequence = Sequence([origin])


def _describe_optics(dataset: Dataset, profile: bytes | None) -> None:
    path = Dataset()
    path.OpticalPathIdentifier = "0"
    path.ObjectiveLensPower = 20
    if profile:
        path.ICCProfile = profile
    dataset.OpticalPathSequence = Sequence([path])


def _tiles(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    height, width = image.shape[:2]
    full = np.full((-(-height // TILE) * TILE, -(-width // TILE) * TILE, 3), 255, "u1")
    full[:height, :width] = image
    return [
        full[y : y + TILE, x : x + TILE]
        for y in range(0, height, TILE)
        for x in range(0, width, TILE)
    ]


def _as_jpeg(tile: NDArray[np.uint8]) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=95))
