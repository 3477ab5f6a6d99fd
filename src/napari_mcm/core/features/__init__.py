"""Features of patches: extraction, the file format, and the `FeatureSet`.

:func:`extract` computes the features of one slide into a zarr group, and
:func:`read_features` reads such a group into a :class:`FeatureSet`.
"""

import lazy_loader

# Options can be read without torch, which takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batch_extraction": ["ExtractResult", "extract_slides"],
        "config": ["ExtractConfig"],
        "extraction": ["extract"],
        "feature_set": ["FeatureSet", "Status"],
        "format": ["feature_path"],
        "neighbourhood": ["NeighbourhoodConfig", "average_neighbourhood"],
        "reading": ["read_features"],
    },
)
