"""Slides named on the line: files, and folders of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from napari_mcm.core.errors import SlideError

SLIDE_ENDINGS = (".svs", ".tif", ".tiff", ".btf", ".ndpi", ".scn")


def find_slides(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Replace each folder by the slide files in it, in the order of their names.

    Raises
    ------
    SlideError
        If a path does not exist or a folder holds no slide.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise SlideError("no such file", path, "Check the path")
            found.append(path)
            continue
        inside = sorted(f for f in path.iterdir() if _is_slide(f))
        if not inside:
            raise SlideError(f"holds no slide files ({', '.join(SLIDE_ENDINGS)})", path)
        found += inside
    # The same slide may come twice, by its name and in its folder.
    return tuple(dict.fromkeys(found))


def _is_slide(file: Path) -> bool:
    # A hidden file is another program's, or a half-written one.
    return file.name.lower().endswith(SLIDE_ENDINGS) and not file.name.startswith(".")
