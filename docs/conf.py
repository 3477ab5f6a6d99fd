"""Sphinx configuration."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from napari_mcm import __version__  # noqa: E402

# Autodoc imports as a type checker does, which pydantic's models do not survive.
for name in ("features.extraction", "heatmaps", "mae.pretraining", "mcm.finetune"):
    importlib.import_module(f"napari_mcm.core.{name}")

project = "napari-mcm"
author = "napari-mcm contributors"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
napoleon_google_docstring = False
# Attributes are described once, by the class.
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_default_options = {"undoc-members": False}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"napari-mcm {release}"
