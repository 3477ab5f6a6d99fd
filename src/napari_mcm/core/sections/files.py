"""Files of one slide, carried over to the next: regions, labels of patches, masks."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import ConfigError, GridError
from napari_mcm.core.labelling import LabelSet, read_labels, write_labels
from napari_mcm.core.labelling.files import is_label_file
from napari_mcm.core.registration import SectionMap
from napari_mcm.core.registration.carry import (
    State,
    carry_mask,
    carry_region,
    describe_states,
)
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.runtime.geojson import make_feature, write_features
from napari_mcm.core.sections.labels import LeftOut, carry_labels
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask, read_mask, write_mask
from napari_mcm.core.tissue.files import GEOJSON, PICTURES
from napari_mcm.core.tissue.geojson import features_in, load_geojson

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

QUERY_ENDING = ".query.json"


@dataclass(frozen=True)
class CarriedFile:
    """A file that was carried over.

    Attributes
    ----------
    source, path : Path
        File of the first slide, and the one that was written.
    what : str
        What it holds, in the plural: ``"labels"``.
    states : tuple of str
        How carrying ended for each of them; none for a mask.
    left_out : tuple of LeftOut
        Those without a place on the other slide.
    """

    source: Path
    path: Path
    what: str
    states: tuple[State, ...]
    left_out: tuple[LeftOut, ...]

    def describe(self) -> str:
        """Describe how it ended in one line.

        Returns
        -------
        str
            ``12 of 14 labels placed; 2 off tissue``.
        """
        if not self.states:
            return f"{self.what} carried"
        return describe_states(self.states, self.what)


def check_kind(path: Path) -> str:
    """Return what a file holds.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    {"labels", "regions", "mask"}

    Raises
    ------
    ConfigError
        If it is missing, or cannot be carried over.
    """
    if not path.is_file():
        raise ConfigError("no such file", path, "Check --carry")
    if path.name.lower().endswith(QUERY_ENDING):
        raise ConfigError(
            "a query applies to other slides as it is",
            path,
            "Give it to napari-mcm similarity, with --query",
        )
    if is_label_file(path):
        return "labels"
    if path.suffix.lower() in GEOJSON:
        return "regions"
    if path.suffix.lower() in PICTURES:
        return "mask"
    raise ConfigError(
        "cannot be carried over", path, "Give .geojson, .labels.json, .png or .tif"
    )


def carry_file(
    mapping: SectionMap,
    slides: tuple[Slide, Slide],
    tissue: TissueMask,
    path: Path,
    folder: Path,
) -> CarriedFile:
    """Carry one file over to the other slide.

    Parameters
    ----------
    mapping : SectionMap
        Map from the first slide to the second.
    slides : tuple of Slide
        Both slides.
    tissue : TissueMask
        Tissue of the second slide.
    path : Path
        File of the first slide.
    folder : Path
        Where to write. The name says the slide: ``marks_on_her2st_C3.geojson``.

    Returns
    -------
    CarriedFile

    Raises
    ------
    ConfigError
        If the file holds nothing of the first slide, or cannot be carried over.
    GridError, LabelError
        If it cannot be read.
    McmError
        If it cannot be written.
    """
    kind = check_kind(path)
    ending = {"labels": ".labels.json", "regions": ".geojson", "mask": ".png"}[kind]
    stem = path.name.removesuffix(ending).removesuffix(path.suffix)
    out = folder / f"{stem}_on_{mapping.target.name}{ending}"
    if out.absolute() == path.absolute():
        raise ConfigError("would be overwritten", path, "Choose another --out")
    if kind == "labels":
        return _carry_label_file(mapping, tissue, path, out)
    if kind == "regions":
        return _carry_geojson(mapping, tissue, path, out)
    carried = carry_mask(mapping, read_mask(path, slides[0]))
    write_mask(out, carried, slides[1])
    return CarriedFile(path, out, "mask", (), ())


def write_left_out(path: Path, carried: Iterable[CarriedFile]) -> None:
    """Write a table of everything that has no place on the other slide.

    Parameters
    ----------
    path : Path
        A ``.csv`` file.
    carried : iterable of CarriedFile
        What was carried.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(("file", "what", "x", "y", "reason"))
        for one in carried:
            for left in one.left_out:
                place = round(left.x, 1), round(left.y, 1)
                table.writerow((one.source.name, left.what, *place, left.state))


def read_objects(path: Path) -> list[tuple[BaseGeometry, str, str]]:
    """Read the objects of a GeoJSON file.

    Parameters
    ----------
    path : Path
        GeoJSON in level-0 pixels, as QuPath writes it.

    Returns
    -------
    list of tuple
        Geometry, name and class of each; name and class may be empty.

    Raises
    ------
    GridError
        If it is missing or damaged, or holds no objects.
    """
    found = [(one, *_names_of(feature)) for feature, one in _geometries(path)]
    if not found:
        raise GridError("holds no objects", path, "Export annotations from QuPath")
    return found


def _carry_label_file(
    mapping: SectionMap, tissue: TissueMask, path: Path, out: Path
) -> CarriedFile:
    labels = read_labels(path)
    if not labels.of_slide(mapping.source.fingerprint).labels:
        raise ConfigError(
            f"has no labels of {mapping.source.name}",
            path,
            "Give the slides in the other order, or the labels of the first one",
        )
    found = carry_labels(mapping, labels, tissue)
    target = mapping.target
    made = LabelSet(labels.classes).with_labels(found.labels)
    write_labels(out, made.with_slide_name(target.fingerprint, target.name))
    return CarriedFile(path, out, "labels", found.states, found.left_out)


def _carry_geojson(
    mapping: SectionMap, tissue: TissueMask, path: Path, out: Path
) -> CarriedFile:
    features, states, left_out = [], [], []
    for number, (feature, geometry) in enumerate(_geometries(path), 1):
        found = carry_region(mapping, geometry, tissue)
        states.append(found.state)
        if found.state == "placed":
            features.append(_feature(feature, found.geometry, mapping, number))
        else:
            centre = geometry.centroid
            name = next(filter(None, _names_of(feature)), f"object {number}")
            left_out.append(LeftOut(name, centre.x, centre.y, found.state))
    if not states:
        raise GridError("holds no objects", path, "Export annotations from QuPath")
    write_features(out, features)
    return CarriedFile(path, out, "objects", tuple(states), tuple(left_out))


def _geometries(path: Path) -> Iterator[tuple[Mapping[str, Any], BaseGeometry]]:
    import shapely

    for number, feature in enumerate(features_in(load_geojson(path, "file")), 1):
        try:
            geometry = shapely.make_valid(shapely.geometry.shape(feature["geometry"]))
            corners = shapely.get_coordinates(geometry)
            if not len(corners) or not np.isfinite(corners).all():
                raise ValueError("coordinates that are missing or not finite")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise GridError(
                f"is damaged: object {number} ({error})", path, "Export it again"
            ) from None
        except shapely.errors.ShapelyError as error:
            raise GridError(
                f"is damaged: object {number} ({error})", path, "Export it again"
            ) from None
        yield feature, geometry


def _feature(
    feature: Mapping[str, Any],
    geometry: BaseGeometry,
    mapping: SectionMap,
    number: int,
) -> dict[str, Any]:
    import shapely

    properties = feature.get("properties")
    described = dict(properties) if isinstance(properties, Mapping) else {}
    earlier = described.get("metadata")
    described["metadata"] = {
        **(earlier if isinstance(earlier, Mapping) else {}),
        "carried from": mapping.source.name,
    }
    rounded = shapely.transform(geometry, lambda xy: np.round(xy, 2))
    key = f"{mapping.source.fingerprint}/{mapping.target.fingerprint}/{number}"
    return make_feature(shapely.geometry.mapping(rounded), described, key)


def _names_of(feature: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and class of an object; both may be empty."""
    properties = feature.get("properties")
    described = properties if isinstance(properties, Mapping) else {}
    kind = described.get("classification")
    label = kind.get("name") if isinstance(kind, Mapping) else None
    return str(described.get("name") or ""), str(label or "")
