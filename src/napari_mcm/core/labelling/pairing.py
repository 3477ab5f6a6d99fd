"""Files of labels and the slides that they are of, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.labelling.files import is_label_file

_WORDS = re.compile(r"[^\W_]+")

_OF_LABELS = {
    "annotated",
    "annotation",
    "annotations",
    "export",
    "label",
    "labels",
    "points",
    "region",
    "regions",
    "spots",
}

_PATTERNS = ("*.geojson", "*.csv", "*.labels.json")


def find_label_files(
    given: Sequence[Path], slides: Sequence[str], pattern: str | None = None
) -> dict[str, Path]:
    """Find the label file of each slide.

    Parameters
    ----------
    given : sequence of Path
        One folder, in which files are found by the slides' names, one file per slide in
        the slides' order, or one label file of all slides.
    slides : sequence of str
        Names of the slides.
    pattern : str, optional
        Pattern of the folder's label files; by default the first of ``*.geojson``,
        ``*.csv`` and ``*.labels.json`` of which there are any.

    Returns
    -------
    dict of str to Path
        File by slide; slides without labels are left out.

    Raises
    ------
    ConfigError
        If several files fit a slide or several slides fit a file, if their numbers differ,
        or if there are none at all.
    """
    if not given:
        raise ConfigError("are missing", "--labels", "Name a folder or files of labels")
    if len(given) == 1 and is_label_file(given[0]):
        # One label file holds the labels of all slides.
        return dict.fromkeys(slides, given[0])
    if len(given) > 1 or not given[0].is_dir():
        return _in_order(given, slides)
    files = _in_folder(given[0], pattern)
    found: dict[str, Path] = {}
    for slide in slides:
        fits = _best_fits(slide, files)
        if len(fits) > 1:
            names = ", ".join(file.name for file in fits)
            raise ConfigError(
                f"several label files fit {slide}: {names}",
                given[0],
                "Choose with --label-pattern, or list the files in the slides' order",
            )
        if fits and fits[0] in found.values():
            other = next(name for name, file in found.items() if file == fits[0])
            raise ConfigError(f"fits both {other} and {slide}", fits[0])
        if fits:
            found[slide] = fits[0]
    if not found:
        raise ConfigError(
            f"no label file is named after a slide ({', '.join(slides[:3])}, ...)",
            given[0],
            "Name them SLIDE.geojson, SLIDE_regions.geojson or SLIDE_spots.csv",
        )
    return found


def _in_order(given: Sequence[Path], slides: Sequence[str]) -> dict[str, Path]:
    missing = [path for path in given if not path.is_file()]
    if missing:
        raise ConfigError("file of labels does not exist", missing[0], "Check the path")
    if len(given) != len(slides):
        raise ConfigError(
            f"{len(given)} label files for {len(slides)} slides",
            "--labels",
            f"Give one for each, in this order: {', '.join(slides)}",
        )
    return dict(zip(slides, given, strict=True))


def _in_folder(folder: Path, pattern: str | None) -> list[Path]:
    for wanted in [pattern] if pattern else _PATTERNS:
        files = sorted(path for path in folder.glob(wanted) if path.is_file())
        if files:
            return files
    raise ConfigError(f"holds no {pattern or ' or '.join(_PATTERNS)}", folder)


def _best_fits(slide: str, files: Sequence[Path]) -> list[Path]:
    """Find the files whose name shares the most words with a slide's."""
    words = _WORDS.findall(slide.lower())
    fits: dict[Path, int] = {}
    for file in files:
        own = _WORDS.findall(file.name.split(".")[0].lower())
        # At the end only, and never all of it: a slide may be called "region".
        while len(own) > 1 and own[-1] in _OF_LABELS:
            own.pop()
        span = len(own)
        # Whole words in a row: a label file of slide 1 must not fit slide 10.
        if any(words[i : i + span] == own for i in range(len(words))):
            fits[file] = span
    return [file for file in fits if fits[file] == max(fits.values())]
