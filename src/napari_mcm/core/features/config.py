"""The options of feature extraction, and the search for files that match them."""

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
    """Compute the features of all patches of a set of slides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: tuple[Path, ...] = Field((), description="Slides to compute features of.")
    encoder: tuple[str, ...] = Field(
        ("offline:efficientnet_lite0",),
        min_length=1,
        description="A timm name, offline:NAME, a run or a safetensors file; with "
        "several, each patch is read once and each encoder gets a folder.",
    )
    out: Path | None = Field(None, description="Folder of the feature files.")
    batch_size: BatchSize = Field(
        "auto", description="Patches per batch; auto is 16 on a CPU, 256 on a GPU."
    )
    workers: int = Field(2, ge=0, le=64, description="Threads that read slides ahead.")
    block: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Patches per write; these are recomputed after an interruption.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compile encoders, which takes seconds and makes them faster; auto "
        "compiles for slides of 3,000 patches or more.",
    )
    scheduler: str | None = Field(
        None,
        description="Address of a dask.distributed scheduler that distributes slides.",
    )
    local_cluster: int = Field(
        0, ge=0, le=256, description="Worker processes to start here; 0 for none."
    )
    publish: str | None = Field(
        None,
        description="URL of a folder that each finished feature file is copied to, such "
        "as s3://bucket/features; slides with files there are not extracted again.",
        json_schema_extra={"flag": "upload-to"},
    )
    overwrite: bool = Field(
        False, description="Overwrite feature files made with other options."
    )
    beside: bool = Field(
        False,
        description="Keep feature files made with other options, and write the new "
        "ones beside them.",
        json_schema_extra={"flag": "keep-incompatible"},
    )
    read: ReadConfig = ReadConfig()
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("beside")
    @classmethod
    def _not_both(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("overwrite"):
            raise ValueError("cannot be used together with --overwrite")
        return value

    @field_validator("encoder", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


Counts = dict[str, int]
"""Number of patches by the name of their status."""


def request_of(slide: Slide, grid: GridConfig, tissue: TissueConfig) -> str:
    """Hash everything that decides which patches of a slide are read, and how.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    grid : GridConfig
        With the resolution resolved to a number.
    tissue : TissueConfig
        A mask drawn by hand counts by its content.

    Returns
    -------
    str
        16 hex digits.
    """
    drawn = tissue.masks and drawn_mask(tissue.masks, slide)
    mask = blake2b(drawn.read_bytes()).hexdigest() if drawn else None
    request = {
        # A new version may find other tissue: files of another one are compared in full.
        "version": __version__,
        "slide": slide.fingerprint,
        "mpp": slide.mpp,
        "backend": slide.opened_with.backend,
        "icc": slide.opened_with.icc,
        "grid": grid.model_dump(mode="json"),
        # The mask's content counts, not the folder that it lies in.
        "tissue": tissue.model_dump(mode="json", exclude={"masks"}),
        "mask": mask,
    }
    text = json.dumps(request, sort_keys=True)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def find_finished(
    files: Sequence[Path], encoders: Sequence[Mapping[str, Any]], request: str
) -> Counts | None:
    """Return the patch counts of finished files that match a request.

    Parameters
    ----------
    files : sequence of Path
        Feature files of one slide, one per encoder.
    encoders : sequence of mapping
        As :meth:`Encoder.describe` returns them.
    request : str
        As :func:`request_of` returns it.

    Returns
    -------
    dict of str to int or None
        Number of patches by status; None unless all files match.
    """
    counts: Counts | None = None
    for file, encoder in zip(files, encoders, strict=True):
        counts = matching_counts(attributes_of(file), encoder, request)
        if counts is None:
            return None
    return counts


def find_matching_file(file: Path, encoder: Mapping[str, Any], request: str) -> Path:
    """Return the file of a slide that matches a request.

    Parameters
    ----------
    file : Path
        The slide's feature file; those beside it are searched too.
    encoder : mapping
        As :meth:`Encoder.describe` returns it.
    request : str
        As :func:`request_of` returns it.

    Returns
    -------
    Path
        `file` where none matches.
    """
    for other in files_of(file):
        if matching_counts(attributes_of(other), encoder, request) is not None:
            return other
    return file


def in_precision_of_file(encoder: Encoder, file: Path) -> Encoder:
    """Return an encoder in the precision of an unfinished feature file.

    Machines differ in what ``auto`` is: any of them resumes a file in its own precision.

    Parameters
    ----------
    encoder : Encoder
        Returned unchanged where its precision was set explicitly.
    file : Path
        The feature file; it need not exist.

    Returns
    -------
    Encoder
        In the file's precision, where the file is of this encoder.
    """
    begun = _precision_of(file, encoder) if encoder.auto_precision else None
    return encoder if begun is None else encoder.in_precision(begun)


def in_precision_of_folder(folder: Path, encoder: Encoder) -> Encoder:
    """Return an encoder in the precision of its feature files in a folder.

    This keeps slides that are added on another machine comparable with the others.

    Parameters
    ----------
    folder : Path
        The folder; it need not exist.
    encoder : Encoder
        Returned unchanged where its precision was set explicitly.

    Returns
    -------
    Encoder
        In the files' precision, where there are files of this encoder.
    """
    if not encoder.auto_precision:
        return encoder
    # The first file that states a precision decides for the whole folder.
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


def matching_counts(
    attributes: Mapping[str, Any], encoder: Mapping[str, Any], request: str
) -> Counts | None:
    """Return the patch counts of a feature file if it matches a request.

    Parameters
    ----------
    attributes : mapping
        The file's attributes.
    encoder : mapping
        As :meth:`Encoder.describe` returns it.
    request : str
        As :func:`request_of` returns it.

    Returns
    -------
    dict of str to int or None
        Number of patches by status; None where the file does not match.
    """
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
