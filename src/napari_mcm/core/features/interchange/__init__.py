"""Patch features to and from other tools: TRIDENT, CLAM, STAMP, AtlasPatch and more."""

from napari_mcm.core.features.interchange.formats import (
    READABLE,
    WRITABLE,
    detect,
    read_foreign,
    read_vectors,
    save_features,
    write_foreign,
)
from napari_mcm.core.features.interchange.record import Written

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
