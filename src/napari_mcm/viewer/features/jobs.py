"""The job of the *Features* widget: extract features of one or many slides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.runtime.jobs import Job, format_seconds
from napari_mcm.core.runtime.overall import portion
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides.paths import slide_name
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.features import LOADING, LoadedFeatures, load_features
from napari_mcm.viewer.app.imports import EXTRACTING, import_modules
from napari_mcm.viewer.app.out_of_memory import PATCHES, explain_out_of_memory

if TYPE_CHECKING:
    from napari_mcm.core.features.batch_extraction import ExtractResult
    from napari_mcm.core.features.config import ExtractConfig

_ENDING = ".features.zarr"


@dataclass(frozen=True)
class ExtractionOutcome:
    """The outcome of an extraction.

    Attributes
    ----------
    result : ExtractResult
        Feature files, and slides that failed.
    loaded : LoadedFeatures or None
        Features of the active slide, if it was one of the slides.
    """

    result: ExtractResult
    loaded: LoadedFeatures | None

    def describe(self) -> str:
        """Return a summary in one line."""
        result = self.result
        slides = "1 slide" if result.slides == 1 else f"{result.slides:,} slides"
        parts = [f"{slides}, {result.patches:,} patches"]
        parts.append(f"in {format_seconds(result.seconds)}")
        text = " ".join(parts)
        if result.files:
            text += f": {result.files[0].parent}"
        if result.failed:
            text += f". {len(result.failed)} failed: {result.failed[0]}"
        return text


def extract_run(
    config: ExtractConfig, present: Path | None, label: str, ready: Callable[[], None]
) -> Job[ExtractionOutcome]:
    """Extract features of slides, and load those of the active slide.

    Parameters
    ----------
    config : ExtractConfig
        Options of the extraction.
    present : Path or None
        The active slide; None if no slide is open.
    label : str
        Display name of the encoder.
    ready : callable
        Blocks until drawn masks are saved.

    Raises
    ------
    FeatureError
        If no slide succeeded.
    """
    from napari_mcm.core.slides.find import find_slides

    module = yield from import_modules(EXTRACTING)
    yield from run_in_thread("Saving the mask", ready)
    slides = yield from run_in_thread("Looking for slides", find_slides, config.slides)
    run_config = reserve_gui_core(config.model_copy(update={"slides": slides}))
    result: ExtractResult
    with explain_out_of_memory(PATCHES, run_config, config.out):
        extracting = module.extract_slides(run_config)
        result = yield from portion(extracting, 0.0, 1.0 - LOADING)
    if not result.files:
        raise FeatureError("; ".join(result.failed) or "no patches were extracted")
    loaded = None
    if present is not None and present in slides:
        name = slide_name(present) + _ENDING
        for file in result.files:
            if file.name == name:
                mpp = config.read.mpp_override
                stated = mpp if isinstance(mpp, float) else None
                loading = load_features(file, present, stated, label)
                loaded = yield from portion(loading, 1.0 - LOADING, 1.0)
    return ExtractionOutcome(result, loaded)
