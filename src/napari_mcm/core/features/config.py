"""Every option of feature extraction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from napari_mcm import __version__
from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.features.format import (
    SCHEMA,
    SUFFIX,
    VERSION,
    attributes_of,
    files_of,
)
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.slides import ReadConfig, Slide
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.core.tissue.find import drawn_mask

if TYPE_CHECKING:
    from napari_mcm.core.encoders import Encoder


BatchSize = Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"]


class ExtractConfig(BaseModel):
    """Features of all patches of a set of slides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field((), description="Slides to compute features of.")
    encoder: tuple[str, ...] = Field(
        ("offline:efficientnet_lite0",),
        min_length=1,
        description="A timm name, offline:NAME, a run or a safetensors file; several "
        "read each patch once and write to a folder each.",
    )
    out: Path | None = Field(None, description="Folder of the feature files.")
    batch_size: BatchSize = Field(
        "auto", description="Patches a batch; auto is 16 on a CPU, 256 on a GPU."
    )
    workers: int = Field(2, ge=0, le=64, description="Threads that read slides ahead.")
    block: int = Field(
        256, ge=1, le=65_536, description="Patches written at a time: lost by a kill."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compile encoders, which takes seconds and makes them faster; auto "
        "compiles for slides of 3,000 patches or more.",
    )
    scheduler: str | None = Field(
        None,
        description="Address of a dask.distributed scheduler to hand slides to.",
    )
    local_cluster: int = Field(
        0, ge=0, le=256, description="Worker processes to start here; 0 for none."
    )
    publish: str | None = Field(
        None,
        description="URL of a folder that each finished feature file is copied to, such "
        "as s3://bucket/features; what is there already is not extracted again.",
    )
    overwrite: bool = Field(
        False, description="Replace feature files that were made in another way."
    )
    beside: bool = Field(
        False,
        description="Where a feature file was made in another way, write the new one "
        "beside it.",
    )
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("beside")
    @classmethod
    def _not_both(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("overwrite"):
            raise ValueError("cannot be asked together with --overwrite")
        return value

    @field_validator("encoder", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


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


def find_matching_file(file: Path, encoder: Mapping[str, Any], request: str) -> Path:
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
