"""Do clusters of an atlas agree with the tissue, or with the slide?

Features of slides whose regions are annotated, as in HER2ST: each patch with its centre in a
region has that region's class. Agreement is the adjusted Rand index, over seeds of k-means.

    .venv/bin/python benchmarks/atlas_tissue.py FEATURES REGIONS [--clusters 6]

REGIONS is a folder of GeoJSON files; `C2_regions.geojson` belongs to the slide whose name
has `C2` between underscores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry import shape
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from napari_mcm.core.atlas import (
    Atlas,
    AtlasConfig,
    kmeans_clusters,
    make_atlas,
)
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.runtime.jobs import run


def tissue_of(atlas: Atlas, regions: Path) -> NDArray[np.str_]:
    """Return the class of each patch; empty outside of all regions."""
    found = np.full(len(atlas), "", dtype="U64")
    for number, slide in enumerate(atlas.slides):
        parts = slide.name.split("_")
        files = [file for p in parts for file in regions.glob(f"{p}_regions.geojson")]
        if not files:
            continue
        patches = atlas.patches_of(number)
        x, y = slide.grid.centres[atlas.row[patches]].T
        content = json.loads(files[0].read_text(encoding="utf-8"))
        for feature in content["features"]:
            inside = contains_xy(shape(feature["geometry"]), x, y)
            name = feature["properties"]["classification"]["name"]
            found[patches[inside]] = name
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("regions", type=Path)
    parser.add_argument("--clusters", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print("context  aligned  tissue ARI  tissue NMI  slide ARI")
    for radius in (0, 1, 2):
        for align in (False, True):
            atlas = run(
                make_atlas(
                    AtlasConfig(
                        features=(options.features,),
                        align_slides=align,
                        neighbourhood=NeighbourhoodConfig(radius=radius),
                    )
                )
            )
            tissue = tissue_of(atlas, options.regions)
            known = tissue != ""
            scores = []
            for seed in range(options.seeds):
                made = kmeans_clusters(atlas.reduced, options.clusters, seed)
                scores.append(
                    (
                        adjusted_rand_score(tissue[known], made[known]),
                        normalized_mutual_info_score(tissue[known], made[known]),
                        adjusted_rand_score(atlas.slide, made),
                    )
                )
            means = "  ".join(f"{mean:10.3f}" for mean in np.mean(scores, axis=0))
            print(f"{radius:7}  {align!s:>7}  {means}", flush=True)


if __name__ == "__main__":
    main()
