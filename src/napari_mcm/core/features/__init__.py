"""Features of patches: extraction, the store on disk, and the noun `FeatureSet`."""

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
        "reading": ["read_features"],
    },
)
