"""The registration of the dock as a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import open_slide, output_folder
from napari_mcm.viewer.layers.metadata import SlideMetadata

if TYPE_CHECKING:
    from napari_mcm.viewer.registration.controller import SectionsController


def register_command(sections: SectionsController) -> Command:
    """Return the command that registers the current slide to the other one.

    Parameters
    ----------
    sections : SectionsController
        The two slides.

    Raises
    ------
    ValueError
        If a slide is missing, or its resolution is unknown; the message is one line.
    """
    from napari_mcm.core.sections import RegisterConfig
    from napari_mcm.core.slides import ReadConfig

    first = open_slide(sections.session)
    other = sections.other
    second = None if other is None else SlideMetadata.of_layer(other)
    if second is None:
        raise ValueError("Open another section of the block")
    if reason := sections.missing():
        raise ValueError(f"{reason[0].upper()}{reason[1:]}")
    entered = first.mpp_override
    if entered != second.mpp_override:
        raise ValueError(
            "One --mpp-override does not serve both slides: list their resolutions in a "
            "CSV file"
        )
    config = RegisterConfig(
        slides=(Path(first.path), Path(second.path)),
        out=output_folder(first) / f"{first.name} to {second.name}",
        read=ReadConfig(mpp_override=entered),
    )
    return Command("register", config, "slides")
