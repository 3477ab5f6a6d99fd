"""What is done on the shown slide, as commands: its tissue, the query, a run's attention."""

from __future__ import annotations

from glob import escape
from typing import TYPE_CHECKING

from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.mil.config import AttentionConfig
from napari_mcm.core.runtime.command import Command
from napari_mcm.core.slides import ReadConfig
from napari_mcm.viewer.app.commands import open_slide, output_folder
from napari_mcm.viewer.app.settings import preferences

if TYPE_CHECKING:
    from napari_mcm.viewer.mil.attention import AttentionController
    from napari_mcm.viewer.mil.controller import MilController


def attention_command(
    controller: MilController, attention: AttentionController
) -> Command:
    """Name the verb that predicts the shown slide and draws where a run looks.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    metadata, run, shown = (
        open_slide(controller.session),
        controller.run,
        attention.shown,
    )
    if run is None:
        raise ValueError("Choose a trained run first")
    name = slide_key(metadata.name)
    folders = [folder for folder in (controller.features, run.features) if folder]
    if not folders:
        raise ValueError("Choose the folder of features first")
    having = [f for f in folders if any(f.glob(f"{escape(name)}.*"))]
    chosen = None
    if shown is not None and shown.prediction.per_class:
        chosen = shown.prediction.classes[shown.number]
    config = AttentionConfig(
        run=run.path,
        slide=metadata.path,
        features=[*having, *folders][0],
        out=output_folder(metadata) / f"{metadata.name}.attention",
        class_name=chosen,
        scaling=attention.scaling,
        compute=preferences().compute,
        read=ReadConfig(mpp_override=metadata.mpp_override),
    )
    return Command("mil attention", config, "run")
