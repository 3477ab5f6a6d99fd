"""Patch encoders: timm models with their weights, preprocessing and precision.

An encoder maps the pixels of a patch to one feature vector. :func:`load_encoder` builds
one from a timm name, a file or a run folder, and :func:`save_encoder` writes one.
"""

import lazy_loader

# Options can be read without torch, which takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compute": ["ComputeConfig"],
        "encoder": ["Encoder"],
        "export": ["save_encoder"],
        "load": ["load_encoder", "load_encoders"],
    },
)
