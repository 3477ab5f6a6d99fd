"""What was asked of an extraction, told before tissue is searched for.

Searching for tissue and laying patches takes seconds a slide, and hours for thousands of
slides that are done already. So a finished file says what it was asked for, and where the
same is asked again, by the same version of this program, it is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm import __version__
from napari_mcm.core.features.layout import (
    SCHEMA,
    SUFFIX,
    VERSION,
    attributes_of,
    files_of,
)
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.core.tissue.find import drawn_mask

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder

Counts = dict[str, int]
"""Patches by the name of their status."""


def request_of(slide: Slide, grid: GridConfig, tissue: TissueConfig) -> str:
    """Hash all that decides which patches of a slide are read, and how.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    grid : GridConfig
        With the resolution settled.
    tissue : TissueConfig
        A mask drawn by hand counts by its content.

    Returns
    -------
    str
        16 hex digits.
    """
    drawn = tissue.masks and drawn_mask(tissue.masks, slide)
    mask = blake2b(drawn.read_bytes()).hexdigest() if drawn else None
    asked = {
        "version": __version__,
        "slide": slide.fingerprint,
        "mpp": slide.mpp,
        "backend": slide.asked.backend,
        "icc": slide.asked.icc,
        "grid": grid.model_dump(mode="json"),
        "tissue": tissue.model_dump(mode="json", exclude={"masks"}),
        "mask": mask,
    }
    text = json.dumps(asked, sort_keys=True)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def find_finished(
    files: Sequence[Path], encoders: Sequence[Mapping[str, Any]], request: str
) -> Counts | None:
    """Look for finished files that answer a request.

    Parameters
    ----------
    files : sequence of Path
        Feature files of one slide, one an encoder.
    encoders : sequence of mapping
        As :meth:`Encoder.describe` gives them.
    request : str
        As :func:`request_of` gives it.

    Returns
    -------
    dict of str to int or None
        How many patches have which status; None unless all files answer it.
    """
    counts: Counts | None = None
    for file, encoder in zip(files, encoders, strict=True):
        counts = answers(attributes_of(file), encoder, request)
        if counts is None:
            return None
    return counts


def find_answer(file: Path, encoder: Mapping[str, Any], request: str) -> Path:
    """Name that of a slide's files which answers a request; the plain one if none."""
    for other in files_of(file):
        if answers(attributes_of(other), encoder, request) is not None:
            return other
    return file


def as_begun(encoder: Encoder, file: Path) -> Encoder:
    """Give an encoder in the precision that a feature file of it was begun in.

    Machines differ in what ``auto`` is: any of them continues a file as it was begun.

    Parameters
    ----------
    encoder : Encoder
        Stays as it is where its precision was asked for.
    file : Path
        The feature file; it need not exist.
    """
    begun = _precision_of(file, encoder) if encoder.auto_precision else None
    return encoder if begun is None else encoder.in_precision(begun)


def as_in(folder: Path, encoder: Encoder) -> Encoder:
    """Give an encoder in the precision of the feature files of it in a folder.

    So that slides that are added on another machine are comparable with those there.

    Parameters
    ----------
    folder : Path
        It need not exist.
    encoder : Encoder
        Stays as it is where its precision was asked for.
    """
    if not encoder.auto_precision:
        return encoder
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        begun = _precision_of(file, encoder)
        if begun is not None:
            return encoder.in_precision(begun)
    return encoder


def _precision_of(file: Path, encoder: Encoder) -> str | None:
    identity = attributes_of(file).get("identity")
    if not isinstance(identity, Mapping):
        return None
    same = identity.get("encoder") == encoder.fingerprint
    known = identity.get("precision") in ("float32", "bfloat16")
    return str(identity["precision"]) if same and known else None


def answers(
    attributes: Mapping[str, Any], encoder: Mapping[str, Any], request: str
) -> Counts | None:
    """Tell whether a feature file answers a request, by its attributes alone."""
    try:
        identity, provenance = attributes["identity"], attributes["provenance"]
        same = (
            attributes["schema"] == SCHEMA
            and attributes["version"] == VERSION
            and attributes["complete"] is True
            and identity["encoder"] == encoder["fingerprint"]
            and identity["precision"] == encoder["precision"]
            and provenance["request"] == request
        )
        counts = {str(k): int(v) for k, v in provenance["counts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return counts if same else None
