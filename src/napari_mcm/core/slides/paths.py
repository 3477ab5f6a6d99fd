"""Local paths and URLs, both carried as a `Path`."""

from __future__ import annotations

import re
from pathlib import Path

# A Path collapses the two slashes of a URL into one.
_URL = re.compile(r"^(https?|s3|gs):/+(?=[^/])")

_DOUBLE_ENDINGS = (".ome.tiff", ".ome.tif", ".ome.zarr.zip", ".ome.zarr", ".zarr.zip")


def url_of(path: str | Path) -> str | None:
    """Return the URL that a path stands for; None for a local path.

    Options, widgets and runs carry slides as paths; this restores a URL that was turned
    into a path.

    Parameters
    ----------
    path : str or Path
        Local path or URL.

    Returns
    -------
    str or None
        The URL with both slashes.
    """
    text = str(path).replace("\\", "/")
    match = _URL.match(text)
    return f"{match[1]}://{text[match.end() :]}" if match else None


def shown(path: str | Path) -> str:
    """Return a path or URL for display, without user names, passwords or signatures.

    Messages, logs and results must not contain credentials from links.

    Parameters
    ----------
    path : str or Path
        Local path or URL.

    Returns
    -------
    str
        A URL loses its user part and its query.
    """
    url = url_of(path)
    if url is None:
        return str(path)
    scheme, rest = url.split("://", 1)
    host, slash, inside = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{inside.partition('?')[0]}"


def slide_name(path: Path) -> str:
    """Return the name by which a slide is known: its file's name without endings.

    Parameters
    ----------
    path : Path
        File or folder of the slide.

    Returns
    -------
    str
        Double endings such as ``.ome.tiff`` are removed whole.
    """
    name = path.name
    for ending in _DOUBLE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    # A full stop in a folder's name need not begin an ending.
    return name if path.is_dir() else path.stem
