"""Encoders: timm models that turn patches into feature vectors."""

import lazy_loader

# Options can be read without torch, which takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compute": ["ComputeConfig"],
        "encoder": ["Encoder"],
        "load": ["load_encoder"],
        "recipe": ["save_encoder"],
    },
)
