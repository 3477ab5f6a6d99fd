"""Slides: open a whole-slide image file and read its pixels at a physical resolution."""

from napari_mcm.core.slides.config import ReadConfig
from napari_mcm.core.slides.levels import Level, ReadPlan
from napari_mcm.core.slides.open import backend_for, backend_names, open_slide
from napari_mcm.core.slides.slide import Slide

__all__ = [
    "Level",
    "ReadConfig",
    "ReadPlan",
    "Slide",
    "backend_for",
    "backend_names",
    "open_slide",
]
