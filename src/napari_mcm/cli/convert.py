"""Convert patch features to another tool's format, or from it.

FEATURES is our own feature file or one of TRIDENT, CLAM, STAMP, AtlasPatch, AnnData or
raw2features. Files that do not state the slide's resolution or the patch size need
--slide, --mpp or --patch-size-level0.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features import FeatureSet
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.format import SUFFIX
from napari_mcm.core.features.interchange import (
    in_neighbourhood,
    read_foreign,
    save_features,
    write_foreign,
)
from napari_mcm.core.slides import ReadConfig

Source = Literal[
    "auto",
    "napari-mcm",
    "trident",
    "clam",
    "stamp",
    "atlaspatch",
    "anndata",
    "raw2features",
]
Target = Literal["napari-mcm", "trident", "clam", "stamp", "anndata", "geojson"]


class _Options(BaseModel):
    """Features, the format to write, and what their file does not state."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Path = Field(description="Feature file, ours or another tool's.")
    to: Target = Field(
        "napari-mcm",
        description="Format to write. trident and clam also write that tool's folders, "
        "if --out does not end in .h5.",
    )
    out: Path = Field(description=f"File to write. Our own files end in {SUFFIX}.")
    slide: Path | None = Field(
        None,
        description="Slide of the patches: gives identity, size and resolution.",
    )
    patch_size_level0: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None,
        description="Side of a patch in level-0 pixels, if the file does not state it.",
    )
    mpp: Annotated[float, Field(gt=0, lt=1000)] | None = Field(
        None,
        description="µm per level-0 pixel, if neither file nor slide states it.",
    )
    encoder: str | None = Field(
        None,
        description="Which features to take from a file with several; else their name.",
    )
    coords: Path | None = Field(
        None, description="File of patches, if features are stored separately (CLAM)."
    )
    overwrite: bool = Field(
        False, description="Replace one of our feature files that holds other features."
    )
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()
    read: ReadConfig = ReadConfig()


# `from` is a keyword of Python: a field of that name needs create_model.
_FROM: Any = (Source, Field("auto", description="Format of the features to read."))
ConvertOptions = create_model(
    "ConvertOptions", __base__=_Options, __doc__=_Options.__doc__, **{"from": _FROM}
)
OPTIONS, POSITIONAL = ConvertOptions, "features"


def run(options: _Options) -> Outcome:
    """Read the features and write them in the other format."""
    _check_out(options)
    features = _read(options)
    for note in features.provenance.get("notes", ()):
        say(f"note: {note}")
    features = in_neighbourhood(features, options.neighbourhood, options.features)
    if options.to == "napari-mcm":
        file = save_features(features, options.out, options.overwrite)
        return _outcome(options, features, [file], len(features), 0)
    written = write_foreign(features, options.out, options.to)
    if written.left_out:
        say(
            f"note: {written.left_out} of {len(features)} patches have no features and "
            "were left out"
        )
    return _outcome(
        options, features, list(written.files), written.patches, written.left_out
    )


def _check_out(options: _Options) -> None:
    """Check the output before features are read, which may take long."""
    if options.to == "napari-mcm" and not options.out.name.endswith(SUFFIX):
        raise ConfigError(
            f"does not end in {SUFFIX}, as our feature files do",
            options.out,
            "Name another format with --to, or another file",
        )
    if options.to == "napari-mcm" and options.neighbourhood.radius:
        raise ConfigError(
            "does not go into our feature files, which hold single patches",
            "--context",
            "Leave it out: every verb that reads them takes --context",
        )


def _read(options: _Options) -> FeatureSet:
    """Read the features, and use the slide for missing metadata if one is given."""
    kind: Any = options.model_dump()["from"]
    # A slide without resolution can still be opened; --mpp then states it for both.
    overrides = {"mpp_override": options.mpp} if options.mpp else {}
    reader = options.read.model_copy(update=overrides)
    with reader.open(options.slide) if options.slide else nullcontext() as slide:
        return read_foreign(
            options.features,
            kind,
            slide,
            options.patch_size_level0,
            options.mpp,
            options.encoder,
            options.coords,
        )


def _outcome(
    options: _Options,
    features: FeatureSet,
    files: list[Path],
    patches: int,
    left_out: int,
) -> Outcome:
    result = {
        "file": files[0],
        "files": files,
        "patches": patches,
        "left_out": left_out,
        "dim": features.dim,
        "encoder": features.encoder.get("spec"),
        "slide": features.grid.slide["name"],
        "format": options.to,
        "neighbourhood": features.neighbourhood.model_dump(),
        "notes": list(features.provenance.get("notes", ())),
    }
    rows = [
        ("features", f"{patches:,} patches with {features.dim:,} numbers each"),
        ("encoder", str(result["encoder"])),
        ("covers", _covered(features)),
        ("format", options.to),
        *(("file", str(file)) for file in files),
    ]
    return Outcome(result, table(rows))


def _covered(features: FeatureSet) -> str:
    """Describe what one feature vector covers."""
    if not features.neighbourhood.radius:
        return "single patches"
    return f"{features.neighbourhood.describe()} patches around each"
