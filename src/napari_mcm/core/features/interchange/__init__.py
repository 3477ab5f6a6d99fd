"""Patch features in the formats of TRIDENT, CLAM, STAMP, AtlasPatch and other tools.

:func:`read_foreign` reads a file of another tool into a `FeatureSet`;
:func:`write_foreign` writes one.
"""

from napari_mcm.core.features.interchange.formats import (
    READABLE,
    WRITABLE,
    Vectors,
    detect,
    in_neighbourhood,
    read_foreign,
    read_vectors,
    save_features,
    write_foreign,
)
from napari_mcm.core.features.interchange.record import Written

__all__ = [
    "READABLE",
    "WRITABLE",
    "Vectors",
    "Written",
    "detect",
    "in_neighbourhood",
    "read_foreign",
    "read_vectors",
    "save_features",
    "write_foreign",
]
