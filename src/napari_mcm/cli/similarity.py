"""Map which patches are similar to the ones you point at.

The ending of --out chooses the format: .png (a figure), .ome.tif (a raster with its
size in µm) or .geojson (polygons for QuPath).
"""

from __future__ import annotations

import numpy as np

from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.core.errors import ConfigError, FeatureError, SlideError
from napari_mcm.core.features import read_features
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps import (
    Examples,
    Heatmap,
    SimilarityIndex,
    difference,
    heatmap_of,
    make_query,
    read_query,
    similarity,
    write_heatmap,
    write_query,
)
from napari_mcm.core.heatmaps.config import Point, SimilarityConfig
from napari_mcm.core.slides import Slide

OPTIONS, POSITIONAL = SimilarityConfig, "features"


def run(options: SimilarityConfig) -> Outcome:
    """Compute the similarity map and write it."""
    _check(options)
    heatmap, like, unlike = _query(options)
    if options.before is not None:
        changes = {"features": options.before, "save_query": None}
        before, _, _ = _query(options.model_copy(update=changes))
        heatmap = difference(before, heatmap)
    shown = heatmap if options.above is None else heatmap.above(options.above)
    _write(shown, options)
    low, high = _range(heatmap)
    result = {
        "query_index": heatmap.query,
        "queries": like,
        "against": unlike,
        "min": low,
        "max": high,
        "limits": heatmap.limits,
        "context": heatmap.neighbourhood.radius,
        "context_weights": heatmap.neighbourhood.weights,
        "file": options.out,
    }
    left_out = "without the query itself" if heatmap.query is not None else "all"
    rows = [
        ("shows", shown.title),
        ("context", heatmap.neighbourhood.describe()),
        ("values", f"{low:.3f} to {high:.3f} ({left_out})"),
        ("colours", "{:.3g} to {:.3g}".format(*heatmap.limits)),
        ("file", str(options.out)),
    ]
    if options.above is not None:
        result["area_mm2"] = heatmap.area_mm2(options.above)
        result["patches_above"] = heatmap.count_above(options.above)
        area = f"{result['area_mm2']:.4g} mm², {result['patches_above']:,} patches"
        rows.insert(3, ("area", area))
    if options.save_query is not None:
        rows.append(("query", str(options.save_query)))
    return Outcome(result, table(rows))


def _query(options: SimilarityConfig) -> tuple[Heatmap, list[int], list[int]]:
    """Run the query; return the map and the rows of similar and dissimilar examples."""
    features = read_features(options.features)
    if options.query is not None:
        return _run_saved_query(options, features), [], []
    return _query_by_points(options, features)


def _check(options: SimilarityConfig) -> None:
    if (options.query is None) == (not options.at):
        raise ConfigError("give either points or a saved query", "--at, --query")
    if options.query is not None and (options.not_at or options.save_query):
        raise ConfigError(
            "cannot be given with --query", "--dissimilar-at, --save-query"
        )


def _query_by_points(
    options: SimilarityConfig, features: FeatureSet
) -> tuple[Heatmap, list[int], list[int]]:
    like = [_patch(features.grid, point) for point in options.at]
    unlike = [_patch(features.grid, point) for point in options.not_at]
    # Features that are averages already keep the context that they have.
    averaged = features.neighbourhood if features.neighbourhood.radius else None
    around = options.neighbourhood_of(averaged, options.features)
    index = SimilarityIndex(features, around)
    heatmap = similarity(index, like, unlike, options.limits, options.pool)
    if options.save_query is not None:
        examples = Examples(options.at, options.not_at, (), options.pool)
        directions = index.directions(like, unlike, options.pool)
        name = str(features.encoder.get("spec") or "encoder")
        query = make_query(examples, {name: (features, directions)}, around)
        write_query(options.save_query, query)
    return heatmap, like, unlike


def _run_saved_query(options: SimilarityConfig, features: FeatureSet) -> Heatmap:
    assert options.query is not None
    query = read_query(options.query)
    made = query.neighbourhood_for(features.encoder)
    around = options.neighbourhood_of(made, options.query)
    index = SimilarityIndex(features, around)
    directions = query.ask(index, options.query)
    here = query.is_of(features)
    found = query.examples.patches(features.grid) if here else None
    title = f"cosine similarity to a query on {query.slide.name}"
    marked = found[0] if found else []
    return heatmap_of(index, directions, title, options.limits, marked)


def _patch(grid: PatchGrid, point: Point) -> int:
    index = grid.index_at(*point)
    if index is None:
        raise FeatureError(
            f"there is no patch at {point[0]:g},{point[1]:g}",
            hint="Give a point on tissue, x,y in level-0 pixels",
        )
    return index


def _range(heatmap: Heatmap) -> tuple[float, float]:
    # The query's own similarity is always 1: leave it out.
    query = [] if heatmap.query is None else [heatmap.query]
    others = np.delete(heatmap.values, query)
    if not np.isfinite(others).any():
        return float("nan"), float("nan")
    return float(np.nanmin(others)), float(np.nanmax(others))


def _write(heatmap: Heatmap, options: SimilarityConfig) -> None:
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
