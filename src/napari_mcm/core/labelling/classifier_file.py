"""The classifier file: one safetensors file whose header holds the description as JSON.

One file, so that weights and description are written together or not at all. Nothing in
it is unpickled, and all of it is checked before it is used.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling.classifier import PatchClassifier
from napari_mcm.core.labelling.config import ClassifierConfig
from napari_mcm.core.labelling.label_set import ClassName
from napari_mcm.core.runtime.files import atomic_path

ENDING = ".classifier.safetensors"
"""Ending of classifier files, by convention."""

FORMAT, MAJOR, MINOR = "napari-mcm patch classifier", 1, 0

MOST_BYTES = 256 * 2**20

_KEY = "napari-mcm"
_HINT = "Name a .classifier.safetensors file"


class _Description(BaseModel):
    """The JSON in the header of a classifier file."""

    # Fields of later minor versions are ignored.
    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal["napari-mcm patch classifier"]
    version: tuple[int, int]
    names: tuple[ClassName, ...] = Field(min_length=2, max_length=1000)
    colors: tuple[str, ...] = ()
    counts: tuple[Annotated[int, Field(ge=0)], ...]
    temperature: float = Field(gt=0, allow_inf_nan=False)
    calibrated: bool
    config: ClassifierConfig
    encoder: dict[str, Any] = {}
    provenance: dict[str, Any] = {}


def save_classifier(path: str | Path, classifier: PatchClassifier) -> Path:
    """Write a classifier to a file, atomically.

    Parameters
    ----------
    path : str or Path
        The file, by convention ``.classifier.safetensors``; its folder is created.
    classifier : PatchClassifier
        The classifier.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    McmError
        If it cannot be written.
    """
    from safetensors.numpy import save

    path = Path(path)
    described = _Description(
        format="napari-mcm patch classifier",
        version=(MAJOR, MINOR),
        names=classifier.names,
        colors=classifier.colors,
        counts=classifier.counts,
        temperature=classifier.temperature,
        calibrated=classifier.calibrated,
        config=classifier.config,
        encoder=dict(classifier.encoder),
        provenance=dict(classifier.provenance),
    )
    tensors = {
        "weights": np.ascontiguousarray(classifier.weights),
        "bias": np.ascontiguousarray(classifier.bias),
    }
    with atomic_path(path) as part:
        # save_file would write a file that only its owner can read.
        part.write_bytes(save(tensors, {_KEY: described.model_dump_json()}))
    return path


def load_classifier(path: str | Path) -> PatchClassifier:
    """Read a classifier file, and check all of it.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    PatchClassifier
        The same probabilities, to the bit.

    Raises
    ------
    LabelError
        If it is missing, damaged, of a newer version, or no classifier file.
    """
    path = Path(path)
    described, tensors = _read(path)
    if described.version[0] != MAJOR:
        raise LabelError(
            f"has version {described.version[0]}, this program reads {MAJOR}",
            path,
            "Update napari-mcm",
        )
    weights, bias = tensors.get("weights"), tensors.get("bias")
    count = len(described.names)
    shaped = (
        weights is not None
        and bias is not None
        and weights.ndim == 2
        and weights.shape[1] == count
        and bias.shape == (count,)
        and weights.dtype == bias.dtype == np.float32
        and len(described.counts) == count
        and math.isfinite(float(np.abs(weights).sum() + np.abs(bias).sum()))
    )
    if not shaped or weights is None or bias is None:
        problem = _damaged(path, "its weights do not fit its classes")
        raise problem
    return PatchClassifier(
        described.names,
        weights,
        bias,
        described.temperature,
        described.calibrated,
        described.config,
        described.counts,
        described.encoder,
        described.colors if len(described.colors) == count else (),
        described.provenance,
    )


def _read(path: Path) -> tuple[_Description, dict[str, Any]]:
    """Return the description and the arrays of a file.

    Raises
    ------
    LabelError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise LabelError("no such classifier file", path, _HINT)
    if path.stat().st_size > MOST_BYTES:
        raise LabelError("is too large for a classifier of patches", path, _HINT)
    try:
        with safe_open(path, framework="numpy") as opened:
            stated = (opened.metadata() or {}).get(_KEY)
            if stated is None:
                raise LabelError(
                    "is not a classifier of patches of napari-mcm", path, _HINT
                )
            described = _Description.model_validate(json.loads(stated))
            keys = set(opened.keys()) & {"weights", "bias"}
            return described, {key: opened.get_tensor(key) for key in keys}
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        problem = _damaged(path, f"{name}: {first['msg']}")
    except (OSError, ValueError, SafetensorError) as error:
        problem = _damaged(path, str(error))
    raise problem


def _damaged(path: Path, reason: str) -> LabelError:
    return LabelError(f"is damaged ({reason})", path, "Train the classifier again")
