"""The slide of File > Open Sample, which is generated once and cached."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from qtpy.QtCore import QEventLoop
from qtpy.QtWidgets import QApplication

from napari_mcm import __version__
from napari_mcm.viewer.layers.metadata import LayerData
from napari_mcm.viewer.reader import read_slide

SIZE = 3200
"""Width and height of the sample slide in level-0 pixels."""
NAME = "Generated H&E slide"
"""Name of the sample's layer."""


def sample_slide() -> list[LayerData]:
    """Open the sample slide, and generate it first if it is not cached.

    Generating takes some seconds. napari expects the layer as the return value, so this
    function blocks, but it processes Qt's events meanwhile: the window repaints and shows
    a progress bar in the activity dock.

    Returns
    -------
    list of tuple
        One slide layer.
    """
    from napari_mcm.core.synthetic import SampleConfig

    config = SampleConfig(slides=1, size=SIZE)
    folder = _folder() / f"{__version__}-{config.size}-{config.seed}"
    ((levels, kwargs, kind),) = read_slide(_generated(folder, config))
    return [(levels, kwargs | {"name": NAME}, kind)]


def _generated(folder: Path, config: object) -> Path:
    from napari.utils import progress

    from napari_mcm.core.runtime.jobs import Progress
    from napari_mcm.core.synthetic import SampleConfig, generate_cohort

    assert isinstance(config, SampleConfig)
    # The table is written last: without it the slide may be incomplete.
    if (folder / "cohort.csv").exists():
        return next(folder.glob("*.ome.tif"))
    job = generate_cohort(folder, config)
    with progress(desc="Generating the sample slide") as bar:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                return Path(end.value.slides[0])
            if isinstance(event, Progress):
                bar.total = event.total
                bar.update(event.done - bar.n)
            if (app := QApplication.instance()) is not None:
                app.processEvents(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)


def _folder() -> Path:
    from napari_mcm.core.runtime.files import cache_folder

    folder = cache_folder("samples")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="napari-mcm-"))
