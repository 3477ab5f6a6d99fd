"""Patch encoders: timm models with their weights, preprocessing and precision.

PyTorch takes seconds to import, so that it is imported with the first use of an encoder
and not with the options of a command.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.core.encoders.encoder import Encoder
    from napari_mcm.core.encoders.export import save_encoder
    from napari_mcm.core.encoders.load import load_encoder

__all__ = ["ComputeConfig", "Encoder", "load_encoder", "save_encoder"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compute": ["ComputeConfig"],
        "encoder": ["Encoder"],
        "export": ["save_encoder"],
        "load": ["load_encoder"],
    },
)
