"""How well a run's attention finds the regions that its labels come from.

For each slide of a class, with the models that have not seen it: the AUROC of the
attention of its patches against "the patch's centre lies in a region of this name", as
the generated cohort's GeoJSON outlines them::

    napari-mcm sample --slides 60 --size 4000 --tumour-share 0.08 --out cohort
    napari-mcm extract cohort --mpp 1 --out features
    napari-mcm mil train cohort/cohort.csv --features features --out runs/abmil
    python benchmarks/mil_cohort.py runs/abmil features cohort
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from shapely import contains_xy, make_valid
from shapely.geometry import shape
from shapely.ops import unary_union
from sklearn.metrics import roc_auc_score

from napari_mcm.core.features import read_features
from napari_mcm.core.mil.ensemble import load_ensemble
from napari_mcm.core.mil.maps import effective_number, usable
from napari_mcm.core.mil.occlusion import occlude
from napari_mcm.core.mil.results import read_folds

POSITIVE, REGION = "tumour", "Tumour"


def drain(work):
    """Run what yields to be cancelled."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def inside(regions: Path, centres: np.ndarray) -> np.ndarray:
    """Tell which points (N, 2) lie in a region of the name looked for."""
    features = json.loads(regions.read_text(encoding="utf-8"))["features"]
    wanted = [
        make_valid(shape(f["geometry"]))
        for f in features
        if f["properties"]["classification"]["name"] == REGION
    ]
    return contains_xy(unary_union(wanted), *centres.T)


def main() -> None:
    """Print a line a slide and the means."""
    run_dir, folder, cohort = map(Path, sys.argv[1:4])
    rows = []
    for case in read_folds(run_dir)["cases"]:
        if case["label"] != POSITIVE:
            continue
        slide = case["slide"]
        features = read_features(folder / f"{slide}.features.zarr")
        chosen = usable(features)
        truth = inside(cohort / f"{slide}.geojson", features.grid.centres)[chosen]
        ensemble = load_ensemble(run_dir, unseen=slide)
        vectors = features.features[chosen]
        looked = drain(ensemble.look(vectors))
        number = ensemble.classes.index(POSITIVE)
        weights = looked.attention
        weights = weights if weights.ndim == 1 else weights[number]
        check = drain(occlude(ensemble, vectors, weights, number, 0.1, 10))
        found = (
            roc_auc_score(truth, weights) if 0 < truth.sum() < len(truth) else np.nan
        )
        rows.append(
            (found, effective_number(weights), check.drop_top, check.drop_random)
        )
        print(
            f"{slide}: attention AUROC {found:.3f}, {truth.sum()} of {len(truth)} "
            f"patches in the region, {rows[-1][1]:.1f} attended, "
            f"p {looked.probabilities[number]:.3f}, without the top 10 % "
            f"{-check.drop_top:+.3f}, without random 10 % {-check.drop_random:+.3f}"
        )
    mean = np.nanmean(np.asarray(rows), axis=0)
    known = np.asarray([row[0] for row in rows])
    known = known[np.isfinite(known)]
    rng = np.random.default_rng(0)
    draws = [rng.choice(known, len(known)).mean() for _ in range(2000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    print(
        f"mean of {len(known)} slides: attention AUROC {mean[0]:.3f} "
        f"({low:.3f} to {high:.3f}), attended {mean[1]:.1f}, "
        f"drop top {mean[2]:.3f}, random {mean[3]:.3f}"
    )


if __name__ == "__main__":
    main()
