"""Where the viewer writes to: beside the slide, or where that is possible."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_mcm.core.slides import Slide

FOLDER = "napari-mcm"


def writable_base(slide: Path) -> Path:
    """Find where files of a slide can go: beside it, at home, or for now."""
    beside = slide.absolute().parent
    for folder in (beside, Path.home()):
        made = folder / FOLDER
        if os.access(made if made.exists() else folder, os.W_OK):
            return made
    return Path(tempfile.gettempdir()) / FOLDER


def drawn_mask_path(slide: Slide) -> Path:
    """Tell where the tissue mask that was drawn on a slide is kept.

    Slides from several folders share the one at home: there each has its own.
    """
    base = writable_base(slide.path)
    if base.parent != slide.path.absolute().parent:
        base /= slide.fingerprint
    return base / f"{slide.name}.geojson"
