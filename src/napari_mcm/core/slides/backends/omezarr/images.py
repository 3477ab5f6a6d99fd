"""The images in an OME-Zarr file: a single one, or a series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.backend import Mpp
from napari_mcm.core.slides.backends.omezarr.metadata import (
    Multiscale,
    checked_path,
    multiscale_of,
    ome_attributes,
    ome_xml,
)
from napari_mcm.core.slides.backends.omezarr.store import StoreLocation
from napari_mcm.core.slides.backends.omezarr.tiles import ZarrTiles

_ASSOCIATED = ("label", "macro", "overview", "thumbnail")
_MOST_IMAGES = 64
_REWRITE = "Write it again with a current OME-Zarr writer"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a file.

    Attributes
    ----------
    group : str
        Path of its group in the file.
    name : str
        As stated; often empty.
    described : Multiscale
        Its metadata.
    levels : sequence of ZarrTiles
        The finest first.
    scales : sequence of tuple of float or None
        Stated size of a pixel of each level along x and y, in the file's unit.
    mpp : tuple of float or None
        Microns per pixel of the finest level along x and y.
    warnings : sequence of str
        What is unusual about it.
    """

    group: str
    name: str
    described: Multiscale
    levels: Sequence[ZarrTiles]
    scales: Sequence[Mpp | None]
    mpp: Mpp | None
    warnings: Sequence[str]

    @property
    def kind(self) -> str | None:
        """``"label"``, ``"macro"``, ``"overview"`` or ``"thumbnail"``, by the image's name.

        Returns
        -------
        str or None
            None for a slide.
        """
        return next((k for k in _ASSOCIATED if k in self.name.lower()), None)

    @property
    def area(self) -> int:
        """Number of pixels of the finest level.

        Returns
        -------
        int
        """
        return self.levels[0].size[0] * self.levels[0].size[1]


def images_of(location: StoreLocation) -> tuple[list[Image], list[str]]:
    """Open all images of a file.

    Parameters
    ----------
    location : StoreLocation
        The open file.

    Returns
    -------
    tuple of list of Image and list of str
        At least one image, and warnings about those that cannot be opened.

    Raises
    ------
    SlideError
        If there is none.
    """
    attributes = location.attributes()
    if attributes is None:
        raise SlideError("holds no zarr group", location.where, "Check the path")
    if described := _described(location, "", attributes):
        return [_image(location, "", described, ("", None))], []
    if "plate" in ome_attributes(attributes):
        raise SlideError(
            "is a plate of wells, not a slide", location.where, "Open one field in it"
        )
    images, errors = _all_in(location, _series(location, ome_attributes(attributes)))
    if images:
        return images, [error.what for error in errors]
    failure = errors[0] if errors else _no_image(location)
    raise failure


def _no_image(location: StoreLocation) -> SlideError:
    return SlideError(
        "holds no OME-Zarr image (no multiscales metadata)",
        location.where,
        "Open the group that holds the image",
    )


def _series(location: StoreLocation, ome: Mapping[str, Any]) -> Iterator[str]:
    """Yield the groups that may be images, in order."""
    if "bioformats2raw.layout" not in ome:
        yield "0"
        return
    listed = ome_attributes(location.attributes("OME") or {}).get("series")
    for name in listed if isinstance(listed, list) else range(_MOST_IMAGES):
        yield str(name)


def _all_in(
    location: StoreLocation, series: Iterator[str]
) -> tuple[list[Image], list[SlideError]]:
    """Open the images of a series, and collect the errors of those that cannot be opened."""
    images, errors = [], []
    try:
        stated = ome_xml(location.read("OME/METADATA.ome.xml"))
    except SlideError as error:
        # It states names and resolutions only: the images open without it.
        stated = []
        errors.append(error)
    for index, group in zip(range(_MOST_IMAGES), series, strict=False):
        try:
            described = _described(
                location, group, location.attributes(_inside(location, group))
            )
            if described is None:
                break
            known = stated[index] if index < len(stated) else ("", None)
            images.append(_image(location, group, described, known))
        except SlideError as error:
            errors.append(error)
    return images, errors


def _inside(location: StoreLocation, group: str) -> str:
    try:
        return checked_path(group)
    except ValueError as error:
        raise SlideError(str(error), location.where, _REWRITE) from error


def _described(
    location: StoreLocation, group: str, attributes: Mapping[str, Any] | None
) -> Multiscale | None:
    try:
        return multiscale_of(attributes or {})
    except ValueError as error:
        which = f"image {group}: " if group else ""
        raise SlideError(f"{which}{error}", location.where, _REWRITE) from error


def _image(
    location: StoreLocation,
    group: str,
    described: Multiscale,
    known: tuple[str, Mpp | None],
) -> Image:
    """Open an image whose name and resolution OME-XML states as `known`.

    Raises
    ------
    SlideError
        If its finest level cannot be opened.
    """
    found: list[tuple[ZarrTiles, Mpp | None]] = []
    warnings: list[str] = []
    for path, scale in zip(described.paths, described.scales, strict=True):
        full = f"{group}/{path}" if group else path
        try:
            found.append((ZarrTiles(location, full, described.axes), scale))
        except SlideError as error:
            # The finest level is required; a coarser one can be computed.
            if not found:
                raise
            warnings.append(f"{error.what}; it is not used")
    found.sort(key=lambda level: level[0].size, reverse=True)
    return Image(
        group=group,
        name=described.name or known[0],
        described=described,
        levels=[tiles for tiles, _ in found],
        scales=[scale for _, scale in found],
        mpp=described.microns(found[0][1]) or known[1],
        warnings=warnings,
    )
