"""How slides are opened: options that override what a file states."""

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
        "file with the columns slide and mpp, for the slides that it lists.",
    )
    backend: str | None = Field(
        None,
        description="Read with this backend only: tifffile, OME-Zarr, DICOM, picture "
        "or OpenSlide.",
    )
    icc: bool = Field(
        False, description="Convert colours to sRGB with each slide's own ICC profile."
    )

    def open(self, path: Path) -> Slide:
        """Open a slide with these options.

        Parameters
        ----------
        path : Path
            File, folder or URL.

        Returns
        -------
        Slide
            Open for reading.

        Raises
        ------
        SlideError
            If it cannot be opened.
        ConfigError
            If the table of resolutions cannot be read.
        """
        return open_slide(path, self.mpp_of(path), self.backend, self.icc)

    def mpp_of(self, path: Path) -> float | None:
        """Return the resolution that the user states for a slide, in microns per pixel.

        Parameters
        ----------
        path : Path
            The slide. A table may name it with its ending, without it, or by its
            whole path.

        Returns
        -------
        float or None
            None where the user states none.

        Raises
        ------
        ConfigError
            If the table of resolutions cannot be read.
        """
        if not isinstance(self.mpp_override, Path):
            return self.mpp_override
        table = _resolutions(self.mpp_override)
        named = (path.name, path.stem, str(path))
        return next((table[name] for name in named if name in table), None)


def _resolutions(file: Path) -> dict[str, float]:
    """Read a table of slides and their resolutions.

    Raises
    ------
    ConfigError
        If it cannot be read, or a line lacks a valid slide or resolution.
    """
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
