"""Cluster the patches of slides, and place them on a 2-D map.

Writes a table with one row per patch, and one GeoJSON file per slide for QuPath.
"""

from __future__ import annotations

import numpy as np

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.atlas.config import AtlasConfig
from napari_mcm.core.errors import ConfigError

OPTIONS, POSITIONAL = AtlasConfig, "features"


def run(options: AtlasConfig) -> Outcome:
    """Make the atlas and write it."""
    from napari_mcm.core.atlas import make_atlas, write_atlas

    if options.out is None:
        raise ConfigError("give a folder to write to", "--out")
    atlas = drive(make_atlas(options))
    files = drive(write_atlas(atlas, options.out))
    sizes = np.bincount(atlas.clusters, minlength=atlas.cluster_count).tolist()
    rows = [
        ("patches", f"{len(atlas):,} of {atlas.available:,}"),
        ("slides", f"{len(atlas.slides):,}"),
        ("clusters", ", ".join(f"{size:,}" for size in sizes)),
        ("map", options.map.method),
        ("file", str(files[0])),
    ]
    result = {
        "patches": len(atlas),
        "available": atlas.available,
        "slides": [slide.name for slide in atlas.slides],
        "clusters": sizes,
        "map": options.map.method,
        "files": files,
    }
    return Outcome(result, table(rows))
