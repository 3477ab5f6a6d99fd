"""How well a run's attention finds the regions that its labels come from.

For each slide of a class, with the models that have not seen it: the AUROC of the
attention of its patches against "the patch's centre lies in a region of this name", as
the generated cohort's GeoJSON outlines them::

    napari-mcm sample --slides 60 --size 4000 --tumour-share 0.08 --out cohort
    napari-mcm extract cohort --mpp 2 --out features
    napari-mcm mil train cohort/cohort.csv --features features --out runs/abmil
    python -m benchmarks.results.attention runs/abmil features cohort
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shapely import contains_xy, make_valid
from shapely.geometry import shape
from shapely.ops import unary_union
from sklearn.metrics import roc_auc_score

from napari_mcm.core.features import read_features
from napari_mcm.core.features.interchange import in_neighbourhood
from napari_mcm.core.mil.attention import occlude
from napari_mcm.core.mil.attention_maps import effective_number, usable
from napari_mcm.core.mil.ensemble import load_ensemble
from napari_mcm.core.mil.results import read_folds
from napari_mcm.core.runtime.jobs import run

POSITIVE, REGION = "tumour", "Tumour"


def inside(regions: Path, centres: np.ndarray) -> np.ndarray:
    """Tell which points (N, 2) lie in a region of the name looked for."""
    features = json.loads(regions.read_text(encoding="utf-8"))["features"]
    wanted = [
        make_valid(shape(f["geometry"]))
        for f in features
        if f["properties"]["classification"]["name"] == REGION
    ]
    return contains_xy(unary_union(wanted), *centres.T)


@dataclass(frozen=True)
class Found:
    """What a slide's attention found, and what leaving out its top patches did."""

    slide: str
    auroc: float
    inside: int
    patches: int
    attended: float
    probability: float
    without_top: float
    without_random: float


def look(run_dir: Path, folder: Path, cohort: Path) -> Iterator[Found]:
    """Look at each positive slide by the models that have not seen it."""
    for case in read_folds(run_dir)["cases"]:
        if case["label"] != POSITIVE:
            continue
        slide = case["slide"]
        ensemble = load_ensemble(run_dir, unseen=slide)
        file = folder / f"{slide}.features.zarr"
        around = ensemble.neighbourhood
        features = in_neighbourhood(read_features(file), around, file)
        chosen = usable(features)
        truth = inside(cohort / f"{slide}.geojson", features.grid.centres)[chosen]
        vectors = features.features[chosen]
        looked = run(ensemble.predict_with_attention(vectors))
        number = ensemble.classes.index(POSITIVE)
        weights = looked.attention
        weights = weights if weights.ndim == 1 else weights[number]
        check = run(occlude(ensemble, vectors, weights, number, 0.1, 10))
        mixed = 0 < truth.sum() < len(truth)
        yield Found(
            slide,
            float(roc_auc_score(truth, weights)) if mixed else float("nan"),
            int(truth.sum()),
            len(truth),
            effective_number(weights),
            float(looked.probabilities[number]),
            -check.drop_top,
            -check.drop_random,
        )


def mean_auroc(found: Sequence[Found]) -> tuple[float, float, float]:
    """Give the mean over slides that have both kinds of patches, and its interval."""
    known = np.asarray([f.auroc for f in found])
    known = known[np.isfinite(known)]
    rng = np.random.default_rng(0)
    draws = [rng.choice(known, len(known)).mean() for _ in range(2000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(known.mean()), float(low), float(high)


def main() -> None:
    """Print a line a slide and the means."""
    run_dir, folder, cohort = map(Path, sys.argv[1:4])
    every = []
    for found in look(run_dir, folder, cohort):
        every.append(found)
        print(
            f"{found.slide}: attention AUROC {found.auroc:.3f}, {found.inside} of "
            f"{found.patches} patches in the region, {found.attended:.1f} attended, "
            f"p {found.probability:.3f}, without the top 10 % {found.without_top:+.3f}, "
            f"without random 10 % {found.without_random:+.3f}"
        )
    mean, low, high = mean_auroc(every)
    print(f"mean: attention AUROC {mean:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
