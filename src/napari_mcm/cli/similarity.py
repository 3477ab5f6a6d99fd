"""Show which patches look like the ones you point at.

The format follows the ending of --out: .png (a figure), .ome.tif (a raster with its
size in µm) or .geojson (polygons for QuPath).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.core.errors import FeatureError, SlideError
from napari_mcm.core.features import read_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import Heatmap, similarity, write_heatmap
from napari_mcm.core.slides import ReadConfig, Slide

Point = tuple[float, float]


class SimilarityOptions(BaseModel):
    """Features, query points, and where the heatmap goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Path = Field(description="Feature file of a slide.")
    at: tuple[Point, ...] = Field(
        min_length=1,
        description="Point of the query patch in level-0 pixels; several are averaged.",
    )
    not_at: tuple[Point, ...] = Field(
        (), description="Point of a patch to be unlike, in level-0 pixels."
    )
    out: Path = Field(description="File to write: .png, .ome.tif or .geojson.")
    slide: Path | None = Field(
        None, description="Slide to show underneath in a figure."
    )
    limits: Literal["fixed", "robust"] = Field(
        "fixed",
        description="Range of the colours: -1 to 1, or the 2nd to the 98th percentile.",
    )
    read: ReadConfig = ReadConfig()


OPTIONS, POSITIONAL = SimilarityOptions, "features"


def run(options: SimilarityOptions) -> Outcome:
    """Compare, and write the heatmap."""
    features = read_features(options.features)
    queries = [_patch(features.grid, point) for point in options.at]
    against = [_patch(features.grid, point) for point in options.not_at]
    heatmap = similarity(features, queries, against, options.limits)
    _write(heatmap, options)
    low, high = _range(heatmap)
    result = {
        "query_index": queries[0],
        "queries": queries,
        "against": against,
        "min": low,
        "max": high,
        "limits": heatmap.limits,
        "file": options.out,
    }
    rows = [
        ("shows", heatmap.title),
        ("values", f"{low:.3f} to {high:.3f} (the query itself left out)"),
        ("colours", "{:.3g} to {:.3g}".format(*heatmap.limits)),
        ("file", str(options.out)),
    ]
    return Outcome(result, table(rows))


def _patch(grid: PatchGrid, point: Point) -> int:
    index = grid.index_at(*point)
    if index is None:
        raise FeatureError(
            f"there is no patch at {point[0]:g},{point[1]:g}",
            hint="Give a point on tissue, x,y in level-0 pixels",
        )
    return index


def _range(heatmap: Heatmap) -> tuple[float, float]:
    others = np.delete(heatmap.values, heatmap.query or 0)
    if not np.isfinite(others).any():
        return float("nan"), float("nan")
    return float(np.nanmin(others)), float(np.nanmax(others))


def _write(heatmap: Heatmap, options: SimilarityOptions) -> None:
    if options.slide is None:
        write_heatmap(heatmap, options.out)
        return
    with options.read.open(options.slide) as slide:
        _check_same(slide, heatmap.grid)
        write_heatmap(heatmap, options.out, slide)


def _check_same(slide: Slide, grid: PatchGrid) -> None:
    if list(slide.size) != list(grid.slide["size"]):
        raise SlideError(
            "is another slide than the features were made from (its size differs)",
            slide.path,
        )
    if slide.fingerprint != grid.slide["fingerprint"]:
        say(f"warning: {slide.path} is another file than the features were made from")
