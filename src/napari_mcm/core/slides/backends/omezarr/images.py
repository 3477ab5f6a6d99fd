"""The images in an OME-Zarr file: one alone, or a series of them."""

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
        Where it is in the file.
    name : str
        As stated; often empty.
    described : Multiscale
        Its metadata.
    levels : sequence of ZarrTiles
        The finest first.
    scales : sequence of tuple of float or None
        For each level the size of a pixel as stated.
    mpp : tuple of float or None
        Microns per pixel of the finest level.
    warnings : sequence of str
        What is odd about it.
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
        """What it is called, if it is a picture beside the slide."""
        return next((k for k in _ASSOCIATED if k in self.name.lower()), None)

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return self.levels[0].size[0] * self.levels[0].size[1]


def images_of(home: StoreLocation) -> tuple[list[Image], list[str]]:
    """Open all images of a file.

    Returns
    -------
    tuple of list of Image and list of str
        At least one image, and warnings on those that cannot be opened.

    Raises
    ------
    SlideError
        If there is none.
    """
    attributes = home.attributes()
    if attributes is None:
        raise SlideError("holds no zarr group", home.where, "Check the path")
    if described := _described(home, "", attributes):
        return [_image(home, "", described, ("", None))], []
    if "plate" in ome_attributes(attributes):
        raise SlideError(
            "is a plate of wells, not a slide", home.where, "Open one field in it"
        )
    images, errors = _all_in(home, _series(home, ome_attributes(attributes)))
    if images:
        return images, [error.what for error in errors]
    raise (errors or [_no_image(home)])[0]


def _no_image(home: StoreLocation) -> SlideError:
    return SlideError(
        "holds no OME-Zarr image (no multiscales metadata)",
        home.where,
        "Open the group that holds the image",
    )


def _series(home: StoreLocation, ome: Mapping[str, Any]) -> Iterator[str]:
    """Name the groups that may be images, in order."""
    if "bioformats2raw.layout" not in ome:
        yield "0"
        return
    listed = ome_attributes(home.attributes("OME") or {}).get("series")
    for name in listed if isinstance(listed, list) else range(_MOST_IMAGES):
        yield str(name)


def _all_in(
    home: StoreLocation, series: Iterator[str]
) -> tuple[list[Image], list[SlideError]]:
    stated = ome_xml(home.read("OME/METADATA.ome.xml"))
    images, errors = [], []
    for index, group in zip(range(_MOST_IMAGES), series, strict=False):
        try:
            described = _described(home, group, home.attributes(_inside(home, group)))
            if described is None:
                break
            known = stated[index] if index < len(stated) else ("", None)
            images.append(_image(home, group, described, known))
        except SlideError as error:
            errors.append(error)
    return images, errors


def _inside(home: StoreLocation, group: str) -> str:
    try:
        return checked_path(group)
    except ValueError as error:
        raise SlideError(str(error), home.where, _REWRITE) from error


def _described(
    home: StoreLocation, group: str, attributes: Mapping[str, Any] | None
) -> Multiscale | None:
    try:
        return multiscale_of(attributes or {})
    except ValueError as error:
        which = f"image {group}: " if group else ""
        raise SlideError(f"{which}{error}", home.where, _REWRITE) from error


def _image(
    home: StoreLocation,
    group: str,
    described: Multiscale,
    known: tuple[str, Mpp | None],
) -> Image:
    """Open an image of which OME-XML says `known`: its name and resolution."""
    found: list[tuple[ZarrTiles, Mpp | None]] = []
    warnings: list[str] = []
    for path, scale in zip(described.paths, described.scales, strict=True):
        full = f"{group}/{path}" if group else path
        try:
            found.append((ZarrTiles(home, full, described.axes), scale))
        except SlideError as error:
            # Without its finest level it is no slide; a coarser one can be made.
            if not found:
                raise
            warnings.append(f"{error.what}; it is left out")
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
