"""Optional imports, and other libraries' error messages in one line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import SlideError
from napari_mcm.core.slides.paths import shown

_LONGEST = 200


def import_optional(name: str, extra: str, where: Path) -> Any:
    """Import a library that this package works without.

    Parameters
    ----------
    name : str
        The module.
    extra : str
        The extra of this package that installs it; "" where none does.
    where : Path
        The slide that needs it, for the message.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    SlideError
        If it is not installed; the hint says how to install it.
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


def one_line(error: BaseException) -> str:
    """Shorten another library's error message to one line.

    Parameters
    ----------
    error : BaseException
        Any exception.

    Returns
    -------
    str
        The message, or the exception's class where it has none.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
