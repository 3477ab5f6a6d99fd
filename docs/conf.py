"""Sphinx configuration."""

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.rst import escape

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from napari_mcm import __version__, core  # noqa: E402

# Autodoc imports as a type checker does, which pydantic's models do not survive.
for module in pkgutil.walk_packages(core.__path__, "napari_mcm.core."):
    importlib.import_module(module.name)

project = "napari-mcm"
author = "napari-mcm contributors"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
napoleon_google_docstring = False
# Attributes are described once, by the class.
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_default_options = {"exclude-members": "model_config"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"napari-mcm {release}"


def setup(app: Sphinx) -> None:
    """Describe configurations by their options, as ``--help`` does."""
    app.connect("autodoc-process-docstring", add_options)
    app.connect("autodoc-process-docstring", part_names)
    app.connect("autodoc-process-signature", leave_out_signature)


def add_options(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """List the fields of a pydantic model below what its docstring says."""
    if is_model(obj):
        lines += ["", *(describe(*field) for field in obj.model_fields.items()), ""]


def part_names(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Repeat what is said of several attributes (``x, y``) for each of them."""
    text = "\n".join(lines)
    several = r"^:(ivar|vartype) (\w+(?:, \w+)+):(.*(?:\n .*)*)"
    lines[:] = re.sub(several, each, text, flags=re.M).split("\n")


def each(entry: re.Match[str]) -> str:
    """Write an entry of several names as one of each."""
    kind, names, said = entry.groups()
    return "\n".join(f":{kind} {name}:{said}" for name in names.split(", "))


def leave_out_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, *signature: Any
) -> tuple[str, None] | None:
    """Have no signature where all options are listed."""
    return ("", None) if is_model(obj) else None


def is_model(obj: Any) -> bool:
    """Tell whether something is a configuration."""
    return isinstance(obj, type) and issubclass(obj, BaseModel)


def describe(name: str, field: FieldInfo) -> str:
    """Describe an option as an item of a list."""
    kind, default = field.annotation, ""
    if is_model(kind):
        return f"* ``{name}``, see :class:`~{kind.__module__}.{kind.__name__}`"
    if not field.is_required() and field.default_factory is None:
        default = f" (``{field.default!r}``)"
    said = f": {escape(field.description)}" if field.description else ""
    return f"* ``{name}``{default}{said}"
