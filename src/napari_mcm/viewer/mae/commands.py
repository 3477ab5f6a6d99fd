"""Return reconstructions that the dock shows as commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.mae.config import ReconstructConfig
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.slides import ReadConfig
from napari_mcm.viewer.app.commands import open_slide, output_folder
from napari_mcm.viewer.app.persistence import writable_base
from napari_mcm.viewer.app.settings import preferences

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.mae.reconstruct_controller import ReconstructController
    from napari_mcm.viewer.mae.reconstruction import ReconstructionOptions


def reconstruct_command(
    run: Path | None, picture: Path | None, asked: ReconstructionOptions
) -> Command:
    """Return the command that reconstructs a picture.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    if run is None:
        raise ValueError("No run is chosen")
    if picture is None:
        raise ValueError("No picture is chosen")
    out = writable_base(picture) / f"{picture.stem}.reconstruction.png"
    return Command(
        "mae reconstruct", _reconstruction((run, picture), asked, out), "paths"
    )


def place_command(session: Session, controller: ReconstructController) -> Command:
    """Return the command that reconstructs the patch around a place of the slide.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    metadata = open_slide(session)
    if controller.folder is None:
        raise ValueError("No run is chosen")
    if controller.place is None:
        raise ValueError("Click on the slide first: the command needs the place")
    out = output_folder(metadata) / f"{metadata.name}.reconstruction.png"
    read = ReadConfig(mpp_override=metadata.mpp_override)
    config = _reconstruction(
        (controller.folder, Path(metadata.path)), controller.options, out
    )
    return Command(
        "mae reconstruct",
        config.model_copy(update={"at": (controller.place,), "read": read}),
        "paths",
    )


def _reconstruction(
    paths: tuple[Path, Path], asked: ReconstructionOptions, out: Path
) -> ReconstructConfig:
    return ReconstructConfig(
        paths=paths,
        mask_ratio=(asked.ratio,) if asked.ratio else (),
        paste=asked.paste,
        seed=asked.seed,
        out=out,
        compute=preferences().compute,
    )
