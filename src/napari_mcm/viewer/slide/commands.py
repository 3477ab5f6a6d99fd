"""The dock's search for tissue as a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.grid import GridOptions
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.slides import ReadConfig
from napari_mcm.viewer.app.commands import open_slide, output_folder

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session


def tissue_command(session: Session) -> Command:
    """Return the command that finds the tissue of the active slide and lays its grid.

    Raises
    ------
    ValueError
        If no slide is open or its resolution is unknown; the message is one line.
    """
    metadata = open_slide(session)
    config = GridOptions(
        slide=Path(metadata.path),
        tissue_out=output_folder(metadata) / f"{metadata.name}.found.geojson",
        read=ReadConfig(mpp_override=metadata.mpp_override),
        grid=session.patches,
    )
    return Command("grid", config, "slide")
