"""Return what the dock shows of a slide as a command."""

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
    from napari_mcm.viewer.mil.attention_controller import AttentionController


def attention_command(attention: AttentionController) -> Command:
    """Return the command that predicts the open slide and writes its attention.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    metadata = open_slide(attention.session)
    run, shown = attention.run, attention.shown
    if run is None:
        raise ValueError("Choose a trained run first")
    name = slide_key(metadata.name)
    folders = [folder for folder in (attention.features, run.features) if folder]
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
