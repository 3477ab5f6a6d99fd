"""Labels of patches, from regions outlined on a slide or from labelled points."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.features.extraction import extract
from napari_mcm.core.features.format import feature_path
from napari_mcm.core.grid import PatchGrid, common_mpp
from napari_mcm.core.labelling.files import is_label_file, read_labels
from napari_mcm.core.labelling.pairing import find_label_files as find_label_files
from napari_mcm.core.labelling.placing import rows_of_labels
from napari_mcm.core.labelling.regions import classes_of_regions
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.slides import Slide

LARGEST_TABLE = 256 * 2**20

_HINT = "Name the columns with --columns X,Y,LABEL"


def label_patches(
    path: Path,
    grid: PatchGrid,
    least_covered: float = 0.0,
    columns: tuple[str, str, str] = ("x", "y", "label"),
    one_a_point: bool = False,
) -> list[str]:
    """Return the class of the region that each patch lies in.

    Parameters
    ----------
    path : Path
        GeoJSON of regions (QuPath), a CSV of points, or a label file.
    grid : PatchGrid
        Patches of this slide.
    least_covered : float, optional
        Smallest fraction of a patch that a class must cover, 0 to 1. With 0 the class
        at the patch's centre is used; of nested regions the smallest.
    columns : tuple of str, optional
        The CSV's columns of x, y and class.
    one_a_point : bool, optional
        Ignore radii: a point labels the nearest patch that holds it.

    Returns
    -------
    list of str
        One class per patch; empty where there is none.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or lacks a column.
    GridError
        If a geometry is damaged.
    LabelError
        If a label file is damaged.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _by_points(path, grid, columns, one_a_point)
    if is_label_file(path):
        return _by_label_file(path, grid)
    return classes_of_regions(path, grid, least_covered)


def _by_label_file(path: Path, grid: PatchGrid) -> list[str]:
    labels = read_labels(path)
    named = [""] * len(grid)
    for row, number in zip(*rows_of_labels(labels, grid), strict=True):
        named[row] = labels.names[number]
    return named


def _by_points(
    path: Path, grid: PatchGrid, columns: tuple[str, str, str], one_a_point: bool
) -> list[str]:
    labels = [""] * len(grid)
    if not len(grid):
        return labels
    # Distance to the nearest point so far, whose class a patch has.
    best = np.full(len(grid), np.inf)
    half = np.asarray(grid.patch_size_level0) / 2
    for x, y, radius, name in read_points(path, columns):
        offsets = np.abs(grid.centres - (x, y))
        distance = np.hypot(*offsets.T)
        if radius is None or one_a_point:
            # One patch per point: the one that holds it.
            inside = (offsets <= half).all(axis=1)
            hit = np.arange(len(grid)) == np.where(inside, distance, np.inf).argmin()
            hit &= inside
        else:
            hit = distance <= radius
        for patch in np.flatnonzero(hit & (distance < best)):
            best[patch], labels[patch] = distance[patch], name
    return labels


def read_points(
    path: Path, columns: tuple[str, str, str]
) -> list[tuple[float, float, float | None, str]]:
    """Read labelled points.

    Parameters
    ----------
    path : Path
        CSV or TSV; a column ``radius`` is optional.
    columns : tuple of str
        Columns of x, y and class.

    Returns
    -------
    list of tuple
        x, y and radius (None without one) in level-0 pixels, and class.

    Raises
    ------
    ConfigError
        If the file cannot be read, or lacks a column or a number.
    """
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise ConfigError("is too large for a table of points", path)
        with path.open(newline="", encoding="utf-8-sig") as opened:
            mark = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(opened, delimiter=mark)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table ({error})", path) from None
    missing = [name for name in columns if name not in header]
    if missing:
        raise ConfigError(
            f"has no column {', '.join(missing)} among {', '.join(header)}", path, _HINT
        )
    return [_point(path, line, row, columns) for line, row in enumerate(rows, 2)]


def _point(
    path: Path, line: int, row: dict[str, str], columns: tuple[str, str, str]
) -> tuple[float, float, float | None, str]:
    try:
        x, y = float(row[columns[0]]), float(row[columns[1]])
        radius = float(row["radius"]) if row.get("radius") else None
    except (TypeError, ValueError):
        raise ConfigError(f"line {line} lacks a number", path, _HINT) from None
    if not all(math.isfinite(v) for v in (x, y, radius or 0)):
        raise ConfigError(f"line {line} holds a number that is not finite", path)
    return x, y, radius, (row[columns[2]] or "").strip()


def smallest_class_count(
    labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> tuple[int, ...]:
    """Count each class's training patches in the fold that leaves the fewest.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Class of each patch, 0 to K - 1.
    folds : ndarray of int64, shape (N,)
        Fold in which each patch is tested.

    Returns
    -------
    tuple of int
        K counts.
    """
    left = [
        np.bincount(labels[folds != f], minlength=labels.max() + 1)
        for f in np.unique(folds)
    ]
    return tuple(np.min(left, axis=0).tolist())


def check_counts(
    labels: NDArray[np.int64], classes: Sequence[str], folds: NDArray[np.int64], k: int
) -> None:
    """Check that there are enough classes, and enough patches of each.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Class of each patch.
    classes : sequence of str
        Names of the classes.
    folds : ndarray of int64, shape (N,)
        Fold in which each patch is tested.
    k : int
        Labels per class of the few-shot probe.

    Raises
    ------
    FeatureError
        If there are fewer than two classes, or one has too few patches outside of a
        fold for `k` of them to be drawn.
    """
    if len(classes) < 2:
        raise FeatureError(
            f"labelled patches are of {len(classes)} class"
            f"{'' if classes else 'es'} ({', '.join(classes) or 'none'}): two are needed"
        )
    for name, least in zip(classes, smallest_class_count(labels, folds), strict=True):
        if least < k:
            raise FeatureError(
                f"class {name} has {least} training patches in a fold, and {k} are to "
                "be drawn",
                hint="Leave it out with --classes, label more of it, or draw fewer "
                "with --few-shot",
            )


# One free row and column between blocks: neighbours are of the same point only.
_BLOCK, _PITCH = 3, 4


def spot_grid(
    slide: Slide, centres: NDArray[np.float64], patch_size: int, mpp: float
) -> PatchGrid:
    """Place a block of three by three patches around each point.

    Parameters
    ----------
    slide : Slide
        The slide, open.
    centres : ndarray of float64, shape (M, 2)
        Points (x, y) in level-0 pixels.
    patch_size : int
        Side of a patch, in pixels of `mpp`.
    mpp : float
        Microns per pixel.

    Returns
    -------
    PatchGrid
        Patches that lie wholly inside the slide; blocks whose central patch does not are
        left out.
    """
    step = patch_size * mpp / np.asarray(slide.mpp)
    # Blocks fill a square lattice, wherever the points lie on the slide.
    wide = max(int(np.ceil(np.sqrt(len(centres)))), 1)
    xy, lattice = [], []
    for number, centre in enumerate(centres):
        corner = centre - step / 2
        if _inside(corner, step, slide):
            first = np.asarray(divmod(number, wide)) * _PITCH
            for place in np.ndindex(_BLOCK, _BLOCK):
                at = corner + (np.asarray(place[::-1]) - 1) * step
                if _inside(at, step, slide):
                    xy.append(np.rint(at))
                    lattice.append(first + place)
    rows = -(-len(centres) // wide) * _PITCH
    described: dict[str, Any] = {
        "patch_size": patch_size,
        "mpp": mpp,
        "patch_size_level0": step.tolist(),
        "origin": (0.0, 0.0),
        "shape": (max(rows, 1), wide * _PITCH),
        "slide": {
            "name": slide.name,
            "fingerprint": slide.fingerprint,
            "size": list(slide.size),
            "mpp": list(slide.mpp),
            **({"icc": True} if slide.opened_with.icc else {}),
        },
    }
    return PatchGrid.from_description(
        described, np.reshape(xy, (-1, 2)), np.reshape(lattice, (-1, 2))
    )


def _inside(
    corner: NDArray[np.float64], step: NDArray[np.float64], slide: Slide
) -> bool:
    return bool((corner >= 0).all() and (corner + step <= slide.size).all())


def extract_spots(config: EvaluateConfig, names: Mapping[str, str]) -> Job[list[Path]]:
    """Compute the features of patches centred on points, as a job.

    Parameters
    ----------
    config : EvaluateConfig
        Slides, and their tables of points.
    names : mapping of str to str
        Folder in ``out/centred`` of each encoder.

    Yields
    ------
    Event
        Progress of the extraction; notes on slides without labels.

    Returns
    -------
    list of Path
        The feature files.

    Raises
    ------
    ConfigError
        If the labels are regions, or slides have no labels.
    """
    from napari_mcm.core.encoders import load_encoders

    assert config.out is not None
    loaded = yield from load_encoders(list(names), config.compute)
    encoders = dict(zip(names, loaded, strict=True))
    slides: list[Slide] = []
    written: list[Path] = []
    try:
        for path in config.slides:
            slides.append(config.read.open(path))
        points = _points(config, [slide.name for slide in slides])
        mpp = common_mpp(slides, config.grid)
        for slide in slides:
            if slide.name not in points:
                yield Note(f"{slide.name} has no labels and is left out", "warning")
                continue
            grid = spot_grid(slide, points[slide.name], config.grid.patch_size, mpp)
            for spec, encoder in encoders.items():
                file = feature_path(config.out / "centred" / names[spec], slide)
                yield from extract(
                    slide,
                    grid,
                    encoder,
                    file,
                    batch_size=config.batch_size,
                    workers=config.workers,
                )
                written.append(file)
    finally:
        for slide in slides:
            slide.close()
    return written


def _points(
    config: EvaluateConfig, slides: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    found = {}
    pattern = config.label_pattern or "*.csv"
    for slide, path in find_label_files(config.labels, slides, pattern).items():
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise ConfigError("is not a table of points", path, "Leave out --centred")
        rows = read_points(path, config.columns)
        found[slide] = np.asarray([row[:2] for row in rows if row[3]], np.float64)
        found[slide] = found[slide].reshape(-1, 2)
    return found
