"""Ground floor: a file becomes pixels at a physical resolution."""

from napari_mcm.core.slides.open import backend_for, backend_names, open_slide
from napari_mcm.core.slides.slide import Level, ReadPlan, Slide

__all__ = [
    "Level",
    "ReadPlan",
    "Slide",
    "backend_for",
    "backend_names",
    "open_slide",
]
