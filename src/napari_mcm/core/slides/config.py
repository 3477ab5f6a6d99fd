"""How slides are opened: what the user states in a file's stead."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.slides.open import open_slide
from napari_mcm.core.slides.slide import Slide


class ReadConfig(BaseModel):
    """How slide files are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mpp_override: Annotated[float, Field(gt=0, lt=1000)] | Path | None = Field(
        None,
        description="µm per pixel of slides that state none, or a wrong one; or a CSV "
        "file with the columns slide and mpp, for those that it names.",
    )
    backend: str | None = Field(
        None,
        description="Read with this backend only: tifffile, OME-Zarr, DICOM, picture "
        "or OpenSlide.",
    )
    icc: bool = Field(
        False, description="Turn colours into sRGB by each slide's own ICC profile."
    )

    def open(self, path: Path) -> Slide:
        """Open a slide this way.

        Raises
        ------
        SlideError
            If it cannot be opened.
        ConfigError
            If the file of resolutions cannot be read.
        """
        return open_slide(path, self.mpp_of(path), self.backend, self.icc)

    def mpp_of(self, path: Path) -> float | None:
        """Tell what the user states of a slide's resolution, in microns per pixel."""
        if not isinstance(self.mpp_override, Path):
            return self.mpp_override
        table = _resolutions(self.mpp_override)
        named = (path.name, path.stem, str(path))
        return next((table[name] for name in named if name in table), None)


def _resolutions(file: Path) -> dict[str, float]:
    """Read a table of slides and their resolutions."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read as a table ({error})", file) from None
    table = {}
    for number, row in enumerate(rows, start=2):
        try:
            name, mpp = row["slide"].strip(), float(row["mpp"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(
                f"line {number} lacks a slide or a number of µm per pixel",
                file,
                "It needs the columns slide and mpp",
            ) from None
        if not 0 < mpp < 1000:
            raise ConfigError(f"line {number} states {mpp:g} µm per pixel", file)
        table[name] = mpp
    return table
