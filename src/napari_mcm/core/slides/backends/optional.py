"""What comes from other people's libraries: optional imports, and errors in one line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.paths import shown

_LONGEST = 200


def import_optional(name: str, extra: str, where: Path) -> Any:
    """Import a library that this package does without.

    Parameters
    ----------
    name : str
        The module.
    extra : str
        The extra of this package that installs it; "" where none does.
    where : Path
        The slide that asks for it.

    Raises
    ------
    SlideError
        If it is not installed, saying how to install it.
    """
    try:
        return import_module(name)
    # A wheel whose shared library is missing fails with OSError.
    except (ImportError, OSError) as error:
        raise SlideError(
            f"needs {name}, which is not installed",
            shown(where),
            f'pip install "napari-mcm[{extra}]"' if extra else f"pip install {name}",
        ) from error


def said(error: BaseException) -> str:
    """Put what another library said into one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
