"""Writing what a search has found: JSON, CSV, and GeoJSON for QuPath."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_mcm.core.runtime.files import atomic_path, write_json
from napari_mcm.core.runtime.geojson import (
    make_feature,
    make_polygon,
    rectangle_rings,
    write_features,
)
from napari_mcm.core.search.result import CrossSlideResult, PatchMatch, SlideMatch

PATCH_COLUMNS = ("rank", "slide", "x", "y", "width", "height", "value", "features")
"""Columns of the table of patches; places and sizes in level-0 pixels."""

SLIDE_COLUMNS = (
    "rank",
    "slide",
    "best",
    "mean",
    "area_mm2",
    "area_is_lower_bound",
    "patches",
    "features",
)
"""Columns of the table by slide."""

_COLOUR = [253, 174, 97]


def write_result(
    path: Path, result: CrossSlideResult, query: Mapping[str, Any]
) -> tuple[Path, ...]:
    """Write what a search has found.

    Parameters
    ----------
    path : Path
        Its ending chooses the format: ``.json`` for all; ``.csv`` for the patches, with
        the slides in ``NAME.slides.csv``; ``.geojson`` for the patches as one file per
        slide, ``NAME.SLIDE.geojson``.
    result : CrossSlideResult
        What was found.
    query : mapping
        What was searched for, as JSON types.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    McmError
        If a file cannot be written.
    """
    ending = path.suffix.lower()
    if ending == ".json":
        write_json(path, as_plain(result, query))
        return (path,)
    if ending == ".geojson":
        return tuple(_write_geojson(path, result.patches))
    slides = path.with_name(f"{path.stem}.slides{path.suffix}")
    _write_csv(path, PATCH_COLUMNS, _patch_rows(result.patches))
    _write_csv(slides, SLIDE_COLUMNS, _slide_rows(result.matches))
    return path, slides


def as_plain(result: CrossSlideResult, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a search has found as JSON types.

    Parameters
    ----------
    result : CrossSlideResult
        What was found.
    query : mapping
        What was searched for.

    Returns
    -------
    dict
        ``query``, ``patches`` and ``slides`` (best first), ``skipped``, and how many
        patches were searched.
    """
    return {
        "query": dict(query),
        "patches": list(_patch_rows(result.patches)),
        "slides": list(_slide_rows(result.matches)),
        "skipped": list(result.skipped),
        "searched": result.searched,
        "searched_with_index": result.indexed,
    }


def _patch_rows(patches: Sequence[PatchMatch]) -> Iterator[dict[str, Any]]:
    for rank, patch in enumerate(patches, 1):
        content = {**asdict(patch), "rank": rank, "features": str(patch.features)}
        yield {name: content[name] for name in PATCH_COLUMNS}


def _slide_rows(matches: Sequence[SlideMatch]) -> Iterator[dict[str, Any]]:
    for rank, match in enumerate(matches, 1):
        yield {
            "rank": rank,
            "slide": match.name,
            "best": _number(match.best),
            "mean": _number(match.mean),
            "area_mm2": match.area_mm2,
            "area_is_lower_bound": match.is_lower_bound,
            "patches": match.patches,
            "features": str(match.features),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_csv(
    path: Path, columns: Sequence[str], rows: Iterator[Mapping[str, Any]]
) -> None:
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)


def _write_geojson(path: Path, patches: Sequence[PatchMatch]) -> Iterator[Path]:
    by_slide: dict[tuple[str, str], list[tuple[int, PatchMatch]]] = {}
    for rank, patch in enumerate(patches, 1):
        by_slide.setdefault((patch.slide, patch.fingerprint), []).append((rank, patch))
    taken: set[str] = set()
    for (name, mark), found in by_slide.items():
        # A slide's name is part of a file's, and two slides may share one.
        safe = re.sub(r"[^\w.()\[\] -]", "_", name)
        safe = f"{safe}.{mark}" if safe in taken else safe
        taken.add(safe)
        file = path.with_name(f"{path.stem}.{safe}{path.suffix}")
        write_features(file, (_feature(rank, patch) for rank, patch in found))
        yield file


def _feature(rank: int, patch: PatchMatch) -> dict[str, Any]:
    low = (patch.x, patch.y)
    high = (patch.x + patch.width, patch.y + patch.height)
    rings = rectangle_rings([low], [high]).tolist()
    properties = {
        "objectType": "annotation",
        "name": f"{rank}: {patch.value:.3f}",
        "classification": {"name": "Found", "color": _COLOUR},
        "measurements": {"Cosine similarity": patch.value, "Rank": rank},
    }
    key = f"search/{patch.fingerprint}/{patch.x},{patch.y}/{patch.patch_size}"
    return make_feature(make_polygon(rings), properties, key)
