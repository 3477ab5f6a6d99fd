"""Patch features to and from other tools: TRIDENT, CLAM, STAMP, AtlasPatch and more."""

from napari_mcm.core.features.interchange.bag import Written
from napari_mcm.core.features.interchange.formats import (
    READABLE,
    WRITABLE,
    detect,
    read_foreign,
    write_foreign,
)
from napari_mcm.core.features.interchange.own import save_features
from napari_mcm.core.features.interchange.vectors import read_vectors

__all__ = [
    "READABLE",
    "WRITABLE",
    "Written",
    "detect",
    "read_foreign",
    "read_vectors",
    "save_features",
    "write_foreign",
]
