"""Local paths and URLs, both carried as a `Path`."""

from __future__ import annotations

import re
from pathlib import Path

# A Path folds the two slashes of a URL into one.
_URL = re.compile(r"^(https?|s3|gs):/+(?=[^/])")


def url_of(path: str | Path) -> str | None:
    """Give the URL that a path stands for; None for a local path.

    Options, widgets and runs carry slides as paths; a URL that went through one is put
    together again here.
    """
    text = str(path).replace("\\", "/")
    found = _URL.match(text)
    return f"{found[1]}://{text[found.end() :]}" if found else None


def shown(path: str | Path) -> str:
    """Give a path or URL as people write it, without what signs somebody in.

    Messages, logs and results must not hold passwords and signatures of links.
    """
    url = url_of(path)
    if url is None:
        return str(path)
    scheme, rest = url.split("://", 1)
    host, slash, inside = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{inside.partition('?')[0]}"
