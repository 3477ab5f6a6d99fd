"""Serial sections from file to file: register two slides, and carry annotations over.

:func:`register_slides` is the job of the verb ``register``. What the viewer carries between
open slides goes through the same functions: :func:`carry_labels` here, and those of
:mod:`napari_mcm.core.registration.carry`.
"""

from napari_mcm.core.sections.config import RegisterConfig
from napari_mcm.core.sections.files import CarriedFile
from napari_mcm.core.sections.job import RegisterResult, register_slides
from napari_mcm.core.sections.labels import CarriedLabels, LeftOut, carry_labels

__all__ = [
    "CarriedFile",
    "CarriedLabels",
    "LeftOut",
    "RegisterConfig",
    "RegisterResult",
    "carry_labels",
    "register_slides",
]
