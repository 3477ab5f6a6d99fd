"""Metadata of an OME-Zarr image: axes, datasets, scales and names.

Format: https://ngff.openmicroscopy.org
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from napari_mcm.core.slides.backend import Mpp

_ASSUMED = ("t", "c", "z", "y", "x")
_LONGEST_XML = 16 * 2**20
_MOST_LEVELS = 64
_MICRONS = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "cm": 1e4,
    "inch": 25_400.0,
    "meter": 1e6,
    "m": 1e6,
}


@dataclass(frozen=True, slots=True)
class Multiscale:
    """Metadata of one image of an OME-Zarr file.

    Attributes
    ----------
    name : str
        As stated; often empty.
    axes : tuple of str
        Names of the arrays' dimensions, in order.
    units : mapping of str to str
        Unit of each axis that states one.
    paths : tuple of str
        The arrays, relative to the image's group.
    scales : tuple of tuple of float or None
        Stated size of a pixel of each array along x and y.
    colours : tuple of str
        Display colours of the channels, where stated.
    document : object
        The metadata as stored.
    """

    name: str
    axes: tuple[str, ...]
    units: Mapping[str, str]
    paths: tuple[str, ...]
    scales: tuple[Mpp | None, ...]
    colours: tuple[str, ...]
    document: Any

    def microns(self, scale: Mpp | None) -> Mpp | None:
        """Convert a scale to microns.

        Parameters
        ----------
        scale : tuple of float or None
            Size of a pixel along x and y, in the axes' units.

        Returns
        -------
        tuple of float or None
            Microns per pixel; None where the scale or its unit is missing or
            unknown.
        """
        x, y = (_MICRONS.get(self.units.get(axis, "").lower()) for axis in "xy")
        if scale is None or x is None or y is None:
            return None
        return scale[0] * x, scale[1] * y


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME part of a group's attributes: version 0.5 nests it under a key.

    Parameters
    ----------
    attributes : mapping
        Attributes of a group.

    Returns
    -------
    mapping
        The attributes themselves before version 0.5.
    """
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def multiscale_of(attributes: Mapping[str, Any]) -> Multiscale | None:
    """Parse the image that a group's attributes describe.

    Parameters
    ----------
    attributes : mapping
        Attributes of a group.

    Returns
    -------
    Multiscale or None
        None where they describe no image.

    Raises
    ------
    ValueError
        If the description violates the specification; the message is one clause.
    """
    ome = ome_attributes(attributes)
    if not ome.get("multiscales"):
        return None
    try:
        return _multiscale(ome, ome["multiscales"][0])
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"its multiscales metadata are damaged ({type(error).__name__}: {error})"
        ) from error


def _multiscale(ome: Mapping[str, Any], image: Mapping[str, Any]) -> Multiscale:
    axes, units = _axes(image, str(ome.get("version") or image.get("version") or ""))
    datasets = image["datasets"][:_MOST_LEVELS]
    paths = tuple(checked_path(dataset["path"]) for dataset in datasets)
    if not paths:
        raise ValueError("its multiscales metadata list no array")
    common = _scale(image, axes) or (1.0, 1.0)
    scales = [_scale(dataset, axes) for dataset in datasets]
    channels = (ome.get("omero") or {}).get("channels") or []
    return Multiscale(
        name=str(image.get("name") or ""),
        axes=axes,
        units=units,
        paths=paths,
        scales=tuple(s and (s[0] * common[0], s[1] * common[1]) for s in scales),
        colours=tuple(str(channel.get("color", "")) for channel in channels),
        document=image,
    )


def _axes(
    image: Mapping[str, Any], version: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    stated = image.get("axes")
    if not stated:
        # Versions 0.1 and 0.2 have these five axes and do not state them.
        if version in ("", "0.1", "0.2", "0.3"):
            return _ASSUMED, {}
        raise ValueError(f"its metadata (version {version}) state no axes")
    entries = [{"name": a} if isinstance(a, str) else a for a in stated]
    names = tuple(_axis_name(entry) for entry in entries)
    if len(set(names)) < len(names) or not {"x", "y"} <= set(names):
        raise ValueError(f"its axes ({', '.join(names)}) are not those of an image")
    units = {
        name: str(entry["unit"])
        for name, entry in zip(names, entries, strict=True)
        if entry.get("unit")
    }
    return names, units


def _axis_name(axis: Mapping[str, Any]) -> str:
    return "c" if axis.get("type") == "channel" else str(axis["name"]).lower()


def checked_path(path: Any) -> str:
    """Return a path in the file in the form that zarr expects.

    Parameters
    ----------
    path : object
        As the metadata state it.

    Returns
    -------
    str
        Relative, with slashes.

    Raises
    ------
    ValueError
        If it is not a path, or leads out of the file.
    """
    if not isinstance(path, str) or "\\" in path or ":" in path:
        raise ValueError(f"its metadata name an array {path!r}")
    parts = path.rstrip("/").split("/")
    # Metadata are untrusted: a path must stay inside the file.
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"its metadata lead out of the file ({path!r})")
    return "/".join(parts)


def _scale(entry: Mapping[str, Any], axes: Sequence[str]) -> Mpp | None:
    for transform in entry.get("coordinateTransformations") or []:
        values = transform.get("scale") if transform.get("type") == "scale" else None
        if isinstance(values, list) and len(values) == len(axes):
            return checked(values[axes.index("x")], values[axes.index("y")])
    return None


def checked(x: Any, y: Any) -> Mpp | None:
    """Return two positive numbers as a pair.

    Parameters
    ----------
    x, y : object
        Values as the metadata state them.

    Returns
    -------
    tuple of float or None
        None if either is not a positive finite number.
    """
    try:
        pair = (float(x), float(y))
    except (TypeError, ValueError):
        return None
    return pair if all(math.isfinite(v) and v > 0 for v in pair) else None


def ome_xml(data: bytes | None) -> list[tuple[str, Mpp | None]]:
    """Read name and resolution of each image in an OME-XML document.

    Parameters
    ----------
    data : bytes or None
        UTF-8 text.

    Returns
    -------
    list of tuple of str and tuple of float or None
        Name, and microns per pixel along x and y, of each image. Empty where the
        document is missing, damaged, huge or declares entities, which could make a
        small file fill the memory.
    """
    if data is None or len(data) > _LONGEST_XML:
        return []
    try:
        text = data.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            return []
        root = ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError):
        return []
    return [
        (image.get("Name", ""), _physical_size(image))
        for image in root.iterfind("{*}Image")
    ]


def _physical_size(image: ElementTree.Element) -> Mpp | None:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return None
    found = []
    for axis in "XY":
        unit = _MICRONS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = checked(pixels.get(f"PhysicalSize{axis}"), 1)
        if unit is None or size is None:
            return None
        found.append(size[0] * unit)
    return found[0], found[1]
