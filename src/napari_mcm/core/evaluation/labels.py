"""Labels of patches, from regions outlined on a slide or from labelled points."""

from __future__ import annotations

import csv
import math
import re
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
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue.geojson import read_regions

LARGEST_TABLE = 256 * 2**20

_WORDS = re.compile(r"[^\W_]+")

_OF_LABELS = {
    "annotated",
    "annotation",
    "annotations",
    "export",
    "label",
    "labels",
    "points",
    "region",
    "regions",
    "spots",
}

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
        GeoJSON of regions (QuPath), or a CSV of points, in level-0 pixels.
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
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _by_points(path, grid, columns, one_a_point)
    return _by_regions(path, grid, least_covered)


def _by_regions(path: Path, grid: PatchGrid, least_covered: float) -> list[str]:
    import shapely

    regions = [(name, area) for name, area in read_regions(path) if name]
    if not regions:
        raise ConfigError(
            "has regions, but none with a class", path, "Give them classes in QuPath"
        )
    labels = [""] * len(grid)
    if least_covered > 0:
        boxes = shapely.box(*grid.xy.T, *(grid.xy + grid.patch_size_level0).T)
        names = sorted({name for name, _ in regions})
        parts = np.array(
            [_covered([a for n, a in regions if n == name], boxes) for name in names]
        )
        for patch in np.flatnonzero(parts.max(axis=0, initial=0) >= least_covered):
            labels[patch] = names[int(parts[:, patch].argmax())]
        return labels
    x, y = grid.centres.T
    # The smallest comes last: it overrides the regions around it.
    for name, area in sorted(regions, key=lambda region: -region[1].area):
        shapely.prepare(area)
        for patch in np.flatnonzero(shapely.contains_xy(area, x, y)):
            labels[patch] = name
    return labels


def _covered(
    areas: Sequence[object], boxes: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Return the fraction of each box that some areas cover together, 0 to 1."""
    import shapely

    # Overlapping regions of one class must not count twice.
    whole = shapely.union_all(areas)
    shapely.prepare(whole)
    parts = np.zeros(len(boxes))
    # Intersections are slow, and most patches lie far from any region.
    near = shapely.intersects(whole, boxes)
    parts[near] = shapely.area(shapely.intersection(whole, boxes[near]))
    return np.asarray(parts / shapely.area(boxes))


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


def find_label_files(
    given: Sequence[Path], slides: Sequence[str], pattern: str | None = None
) -> dict[str, Path]:
    """Find the label file of each slide.

    Parameters
    ----------
    given : sequence of Path
        One folder, in which files are found by the slides' names, or one file per slide in
        the slides' order.
    slides : sequence of str
        Names of the slides.
    pattern : str, optional
        Pattern of the folder's label files; by default ``*.geojson``, or ``*.csv`` where
        there are none.

    Returns
    -------
    dict of str to Path
        File by slide; slides without labels are left out.

    Raises
    ------
    ConfigError
        If several files fit a slide or several slides fit a file, if their numbers differ,
        or if there are none at all.
    """
    if not given:
        raise ConfigError("are missing", "--labels", "Name a folder or files of labels")
    if len(given) > 1 or not given[0].is_dir():
        return _in_order(given, slides)
    files = _in_folder(given[0], pattern)
    found: dict[str, Path] = {}
    for slide in slides:
        fits = _best_fits(slide, files)
        if len(fits) > 1:
            names = ", ".join(file.name for file in fits)
            raise ConfigError(
                f"several label files fit {slide}: {names}",
                given[0],
                "Choose with --label-pattern, or list the files in the slides' order",
            )
        if fits and fits[0] in found.values():
            other = next(name for name, file in found.items() if file == fits[0])
            raise ConfigError(f"fits both {other} and {slide}", fits[0])
        if fits:
            found[slide] = fits[0]
    if not found:
        raise ConfigError(
            f"no label file is named after a slide ({', '.join(slides[:3])}, ...)",
            given[0],
            "Name them SLIDE.geojson, SLIDE_regions.geojson or SLIDE_spots.csv",
        )
    return found


def _in_order(given: Sequence[Path], slides: Sequence[str]) -> dict[str, Path]:
    missing = [path for path in given if not path.is_file()]
    if missing:
        raise ConfigError("file of labels does not exist", missing[0], "Check the path")
    if len(given) != len(slides):
        raise ConfigError(
            f"{len(given)} label files for {len(slides)} slides",
            "--labels",
            f"Give one for each, in this order: {', '.join(slides)}",
        )
    return dict(zip(slides, given, strict=True))


def _in_folder(folder: Path, pattern: str | None) -> list[Path]:
    for wanted in [pattern] if pattern else ["*.geojson", "*.csv"]:
        files = sorted(path for path in folder.glob(wanted) if path.is_file())
        if files:
            return files
    raise ConfigError(f"holds no {pattern or '*.geojson or *.csv'}", folder)


def _best_fits(slide: str, files: Sequence[Path]) -> list[Path]:
    """Find the files whose name shares the most words with a slide's."""
    words = _WORDS.findall(slide.lower())
    fits: dict[Path, int] = {}
    for file in files:
        own = _WORDS.findall(file.name.split(".")[0].lower())
        # At the end only, and never all of it: a slide may be called "region".
        while len(own) > 1 and own[-1] in _OF_LABELS:
            own.pop()
        span = len(own)
        # Whole words in a row: a label file of slide 1 must not fit slide 10.
        if any(words[i : i + span] == own for i in range(len(words))):
            fits[file] = span
    return [file for file in fits if fits[file] == max(fits.values())]


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
