"""Writing classes of patches for other programs, and the table of areas."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.labelling.areas import ClassArea, total_areas
from napari_mcm.core.labelling.classifier import UNSURE
from napari_mcm.core.labelling.label_set import UNSURE_LABEL
from napari_mcm.core.labelling.slide_classes import SlideClasses
from napari_mcm.core.lattice import cell_place_um, cell_rings, patch_areas_mm2
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.geojson import make_feature, make_polygon, write_features
from napari_mcm.core.runtime.ome_raster import write_ome_raster

UNSURE_COLOR = "#9a9a9a"

Stop = Callable[[], bool]
_Row = TypeVar("_Row")

ALL_SLIDES = "all slides"
"""What the table calls the sum of its slides."""

AREA_COLUMNS = (
    "slide",
    "fingerprint",
    "class",
    "area_mm2",
    "tissue_percent",
    "patches",
    "mean_probability",
)


@dataclass(frozen=True)
class SlideAreas:
    """The areas of the classes of one slide.

    Attributes
    ----------
    slide, fingerprint : str
        The slide.
    areas : tuple of ClassArea
        One for each class, and last the unsure area.
    """

    slide: str
    fingerprint: str
    areas: tuple[ClassArea, ...]


class WriteStoppedError(Exception):
    """Raised when a file is no longer wanted; what was written of it is removed."""


def write_classes(
    classes: SlideClasses,
    path: str | Path,
    stopped: Stop = lambda: False,
    form: str = "",
) -> Path:
    """Write the classes of a slide in a format, by default that of the file's ending.

    Parameters
    ----------
    classes : SlideClasses
        Classes and probabilities of its patches.
    path : str or Path
        ``.csv``: one row per patch. ``.regions.geojson``: one annotation for each
        connected region of a class. ``.geojson``: one tile per patch. Both are in level-0
        pixels, with classification and measurements, as QuPath imports them.
        ``.ome.tif``: labels with one pixel per patch, 0 without features, 1 to K for the
        classes, K + 1 for unsure.
    stopped : callable, optional
        Returns whether to stop; asked for each row, as files of large slides take
        seconds.
    form : str, optional
        Ending of the format, where that of the file does not count.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If the ending is another one.
    McmError
        If the file cannot be written.
    WriteStoppedError
        If it was stopped.
    """
    path = Path(path)
    for ending, write in _WRITERS.items():
        if (form or path.name.lower()).endswith(ending):
            write(classes, path, stopped)
            return path
    raise ConfigError(
        "has an ending that is not a format of classes",
        path,
        f"Use one of {', '.join(_WRITERS)}",
    )


def write_areas(slides: Sequence[SlideAreas], path: str | Path) -> Path:
    """Write the table of areas: a row for each slide and class, and for all slides.

    Parameters
    ----------
    slides : sequence of SlideAreas
        Areas of each slide, of the same classes.
    path : str or Path
        The CSV file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    rows = [(one.slide, one.fingerprint, area) for one in slides for area in one.areas]
    rows += [(ALL_SLIDES, "", a) for a in total_areas(one.areas for one in slides)]
    cells = (
        [
            slide,
            fingerprint,
            area.label,
            repr(area.mm2),
            repr(100 * area.share),
            area.patches,
            "" if math.isnan(area.probability) else repr(area.probability),
        ]
        for slide, fingerprint, area in rows
    )
    return _write_rows(path, AREA_COLUMNS, cells)


def _until(stopped: Stop, rows: Iterable[_Row]) -> Iterator[_Row]:
    """Yield rows until the file is no longer wanted.

    Raises
    ------
    WriteStoppedError
        When it is not.
    """
    for row in rows:
        if stopped():
            raise WriteStoppedError
        yield row


def _write_rows(
    path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(Path(path), text.getvalue())
    return Path(path)


def _write_csv(classes: SlideClasses, path: Path, stopped: Stop) -> None:
    shown = classes.shown
    areas = patch_areas_mm2(classes.grid, classes.decided >= UNSURE)
    width, height = (round(side) for side in classes.grid.patch_size_level0)
    header = ["patch", "x", "y", "width", "height", "class", "probability", "area_mm2"]
    header += [f"p_{name}" for name in classes.names]
    rows = zip(
        shown.tolist(),
        classes.grid.xy[shown].tolist(),
        _labels(classes),
        areas[shown].tolist(),
        classes.probabilities[shown],
        strict=True,
    )
    _write_rows(
        path,
        header,
        (
            [row, *xy, width, height, label, str(p.max()), repr(area), *map(str, p)]
            for row, xy, label, area, p in _until(stopped, rows)
        ),
    )


def _write_tiles(classes: SlideClasses, path: Path, stopped: Stop) -> None:
    shown = classes.shown
    rings = cell_rings(classes.grid)[shown]
    tiles = (
        make_feature(
            make_polygon([ring.tolist()]),
            {
                "objectType": "tile",
                "name": f"patch {row}",
                "classification": classification(classes, number),
                "measurements": _measured(classes, p, number),
            },
            f"{classes.fingerprint}/{'/'.join(map(str, classes.grid.xy[row]))}/class",
        )
        for row, ring, number, p in zip(
            shown,
            rings,
            classes.decided[shown],
            classes.probabilities[shown],
            strict=True,
        )
    )
    write_features(path, _until(stopped, tiles))


def _write_regions(classes: SlideClasses, path: Path, stopped: Stop) -> None:
    write_features(path, _until(stopped, _regions(classes)))


def _regions(classes: SlideClasses) -> Iterator[dict[str, Any]]:
    """Yield an annotation for each region of touching patches of one class."""
    import shapely

    areas = patch_areas_mm2(classes.grid, classes.decided >= UNSURE)
    rings = cell_rings(classes.grid)
    boxes = shapely.box(*rings[:, 0].T, *rings[:, 2].T)
    for number in range(UNSURE, len(classes.names)):
        for rows in _connected(classes, number):
            x, y = classes.grid.xy[rows[0]]
            measured = _measured(
                classes, classes.probabilities[rows].mean(axis=0), number
            )
            measured = {
                "area mm2": float(areas[rows].sum()),
                "patches": len(rows),
                **measured,
            }
            yield make_feature(
                json.loads(shapely.to_geojson(_outline(boxes[rows]))),
                {
                    "objectType": "annotation",
                    "classification": classification(classes, number),
                    "measurements": measured,
                },
                f"{classes.fingerprint}/{x},{y}/{number}/region",
            )


def _outline(boxes: NDArray[Any]) -> Any:
    """Return the outline of some boxes, with points at its corners only."""
    import shapely

    return shapely.simplify(shapely.union_all(boxes), 0)


def _connected(classes: SlideClasses, number: int) -> list[NDArray[np.int64]]:
    """Return the patches of each region of one class, whose cells share an edge."""
    from scipy import ndimage

    lattice = classes.grid.lattice
    (rows,) = np.nonzero(classes.decided == number)
    if not len(rows):
        return []
    picture = np.zeros(classes.grid.shape, bool)
    picture[tuple(lattice[rows].T)] = True
    regions, _ = ndimage.label(picture)
    of_row = regions[tuple(lattice[rows].T)]
    order = np.argsort(of_row, kind="stable")
    cuts = np.flatnonzero(np.diff(of_row[order])) + 1
    return np.split(rows[order], cuts)


def _write_labels(classes: SlideClasses, path: Path, stopped: Stop) -> None:
    count = len(classes.names)
    values = np.where(classes.decided == UNSURE, count + 1, classes.decided + 1)
    raster = np.zeros(classes.grid.shape, np.uint16)
    shown = classes.shown
    raster[tuple(classes.grid.lattice[shown].T)] = values[shown]
    meaning = {str(i + 1): name for i, name in enumerate(classes.names)}
    meaning |= {"0": "no features", str(count + 1): UNSURE_LABEL}
    write_ome_raster(
        path,
        raster,
        *cell_place_um(classes.grid),
        f"classes of {classes.slide}",
        json.dumps(meaning, ensure_ascii=False),
    )


def classification(classes: SlideClasses, number: int) -> dict[str, Any]:
    """Return a class as QuPath reads it.

    Parameters
    ----------
    classes : SlideClasses
        Names and colours.
    number : int
        Index of the class; -1 for unsure.

    Returns
    -------
    dict
        ``name`` and ``color`` (red, green, blue; 0 to 255).
    """
    unsure = number == UNSURE
    name = UNSURE_LABEL if unsure else classes.names[number]
    color = UNSURE_COLOR if unsure else classes.colors[number]
    return {"name": name, "color": [int(color[i : i + 2], 16) for i in (1, 3, 5)]}


def _measured(
    classes: SlideClasses, p: NDArray[np.float32], number: int
) -> dict[str, float]:
    """Return the probability of the own class, or of the likeliest, and of each class."""
    own = p.max() if number == UNSURE else p[number]
    # The shortest text from which the same float32 is read.
    each = {f"p {n}": float(str(v)) for n, v in zip(classes.names, p, strict=True)}
    return {"probability": float(str(own)), **each}


def _labels(classes: SlideClasses) -> list[str]:
    names = (*classes.names, UNSURE_LABEL)  # index -1 is the last
    return [names[number] for number in classes.decided[classes.shown]]


_WRITERS: dict[str, Callable[[SlideClasses, Path, Stop], None]] = {
    ".csv": _write_csv,
    ".regions.geojson": _write_regions,
    ".geojson": _write_tiles,
    ".ome.tif": _write_labels,
    ".ome.tiff": _write_labels,
}
