"""Slides on which figures flatter: in the training set of a MIL model or its encoder.

A run writes the fingerprints of its slides beside its folds, so that a slide is
recognised in the training set whatever its file is called now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_mcm.core.encoders.learned_from import warn_of_seen
from napari_mcm.core.features.format import attributes_of
from napari_mcm.core.mil.bags import FeatureFolder
from napari_mcm.core.mil.ensemble import was_trained_on
from napari_mcm.core.runtime.files import write_json

SLIDES_FILE = "slides.json"
"""File of a run with the fingerprint of each of its slides."""


def fingerprint_of(file: Path) -> str:
    """Return the fingerprint of the slide of a feature file.

    Parameters
    ----------
    file : Path
        The file.

    Returns
    -------
    str
        "" where it states none, as other tools' files.
    """
    identity = attributes_of(file).get("identity")
    return str(identity.get("slide") or "") if isinstance(identity, Mapping) else ""


def warn_of_encoder(folder: FeatureFolder, slides: Iterable[str]) -> str:
    """Return the warning where tested slides are in the training set of the encoder.

    Parameters
    ----------
    folder : FeatureFolder
        Features of one encoder.
    slides : iterable of str
        Names of the tested slides.

    Returns
    -------
    str
        One line; "" where none of them is, or nothing is known.
    """
    tested = [slide for slide in slides if slide in folder]
    if not tested:
        return ""
    encoder: Any = attributes_of(folder.files[tested[0]]).get("encoder")
    if not isinstance(encoder, Mapping):
        return ""
    # Read one by one, and none after the first where the encoder names no slide.
    return warn_of_seen(
        encoder,
        (
            {"name": slide, "fingerprint": fingerprint_of(folder.files[slide])}
            for slide in tested
        ),
    )


def record_slides(run_dir: Path, folder: FeatureFolder, slides: Iterable[str]) -> None:
    """Write the fingerprints of a run's slides, unless they are written.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.
    folder : FeatureFolder
        Features of its slides.
    slides : iterable of str
        Names of its slides.
    """
    file = run_dir / SLIDES_FILE
    if not file.exists():
        found = {slide: fingerprint_of(folder.files[slide]) for slide in slides}
        write_json(file, {name: mark for name, mark in found.items() if mark})


def trained_fingerprints(run_dir: Path, folds: Iterable[str]) -> set[str]:
    """Return the fingerprints of the slides in the training set of some folds.

    Parameters
    ----------
    run_dir : Path
        Output directory of `mil train`.
    folds : iterable of str
        Names of the folds.

    Returns
    -------
    set of str
        Of training and validation slides; empty for runs of earlier versions.
    """
    try:
        content = json.loads((run_dir / SLIDES_FILE).read_text(encoding="utf-8"))
        marks = {str(name): str(mark) for name, mark in content.items()}
    except (OSError, ValueError, AttributeError):
        return set()
    return {marks[s] for s in was_trained_on(run_dir, [*folds]) if s in marks}


def find_trained_on(
    run_dir: Path, folds: Iterable[str], slides: Mapping[str, str]
) -> set[str]:
    """Return the slides among some that models were trained on or stopped by.

    Parameters
    ----------
    run_dir : Path
        Output directory of `mil train`.
    folds : iterable of str
        Names of the folds whose models are used.
    slides : mapping of str to str
        Fingerprint by the name of each slide; "" where it is unknown.

    Returns
    -------
    set of str
        Those of the same name or the same content.
    """
    folds = list(folds)
    names, marks = was_trained_on(run_dir, folds), trained_fingerprints(run_dir, folds)
    return {name for name, mark in slides.items() if name in names or mark in marks}
