"""Fine-tune encoders, and compare them on the open slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.overall import Stages
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.features import (
    SLOTS,
    FeatureRequest,
    LoadedFeatures,
    compute_features,
    encoder_label,
)
from napari_mcm.viewer.app.imports import LEARNING, import_modules
from napari_mcm.viewer.app.out_of_memory import WINDOWS, explain_out_of_memory
from napari_mcm.viewer.app.persistence import RUNS, writable_base
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.finetune.click_test import (
    ClickResult,
    choose_sections,
    click_config,
    run_click_test,
    section_folder,
)
from napari_mcm.viewer.finetune.run import FinetuneRun, read_run
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.qt.patch_fields import folder_name
from napari_mcm.viewer.training.controller import TrainingController
from napari_mcm.viewer.training.run_folder import read_config

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.evaluation.config import EvaluateConfig
    from napari_mcm.core.mcm.config import FinetuneConfig
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.training.metrics import Curves


class FinetuneController(TrainingController):
    """Fine-tune encoders, and keep their curves and results.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    trained : Signal
        A fine-tuning has finished, and its run is shown.
    """

    trained = Signal()

    run: FinetuneRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "finetune", RUNS)
        self._just_trained: Path | None = None

    def start(self, config: FinetuneConfig) -> None:
        """Start a new fine-tuning."""
        assert config.out is not None
        title = f"Fine-tuning {config.student}"
        ready = self.session.disk.wait
        self._start(title, lambda: finetune_run(config, ready), config.out)

    def resume(self, folder: Path) -> None:
        """Resume an unfinished run."""
        self._resume(lambda: resume_run(folder), folder)

    def read(self, folder: Path) -> FinetuneRun | None:
        """Read a finished run, in the background; None where there is none."""
        return read_run(folder)

    def compare(self, with_teacher: bool) -> None:
        """Compute features of the open slide before and after, and show them.

        Parameters
        ----------
        with_teacher : bool
            Whether to compute those of the teacher, too.
        """
        run, slide = self.run, self.session.slide
        if run is None or slide is None or self.is_busy():
            return
        specs = (run.student, str(run.path), run.teacher if with_teacher else "")
        requests = [self._request(spec, run.grid) for spec in specs if spec]
        name = SlideMetadata.of_layer(slide)
        self.session.jobs.start(
            f"Features of {name.name if name else 'the slide'}, before and after",
            lambda: compute_several(requests),
            lambda found: self._compared(slide, found),
        )

    def click_config(self, sections: Sequence[Path]) -> EvaluateConfig:
        """Return the options of the click test of the run on two sections.

        Raises
        ------
        ValueError
            With one line, if they cannot be used.
        """
        assert self.run is not None
        chosen = choose_sections(self.session, sections)
        return click_config(self.run, chosen, section_folder(self.session, sections))

    def test_clicks(self, sections: Sequence[Path]) -> None:
        """Measure how often a click finds its place in the next section.

        Parameters
        ----------
        sections : sequence of Path
            The section that is asked, and the one that is searched.
        """
        run, session = self.run, self.session
        if run is None or self.is_busy():
            return
        try:
            config = reserve_gui_core(self.click_config(sections))
        except ValueError as error:
            session.report_error(str(error))
            return
        session.jobs.start(
            f"Click test of {run.path.name}",
            lambda: run_click_test(config, run, session.disk.wait),
            lambda found: self._tested(run.path, found),
        )

    def _tested(self, folder: Path, found: ClickResult | None) -> None:
        if found is not None:
            self.session.jobs.status.message = "The click test is shown with the run"
        # Another run may be shown by now: its own result stays.
        if self.run is not None and self.run.path == folder:
            self.run = replace(self.run, clicks=found)
            self.run_changed.emit()

    def _request(self, spec: str, grid: GridConfig) -> FeatureRequest:
        session, metadata = self.session, self.session.metadata
        assert metadata is not None
        slide, chosen = Path(metadata.path), preferences()
        return FeatureRequest(
            slide,
            metadata.mpp_override,
            spec,
            encoder_label(spec),
            grid,
            (chosen.output_folder or writable_base(slide)) / folder_name(spec),
            mask=session.tissue.drawn_mask(session.slide),
            compute=chosen.compute,
            beside=True,
        )

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Fine-tuned: {folder}"
        # The other widgets offer its encoder from now on.
        self.session.recent.reload()
        self._just_trained = folder
        self.show_run(folder)

    def _take_run(self, folder: Path, run: FinetuneRun | None, curves: Curves) -> None:
        super()._take_run(folder, run, curves)
        just_trained, self._just_trained = self._just_trained, None
        if run is not None and folder == just_trained:
            self.trained.emit()

    def _compared(self, slide: Layer, found: list[LoadedFeatures]) -> None:
        for slot, loaded in zip(SLOTS, found, strict=False):
            self.session.set_features(slide, slot, loaded)
        shown = "Before, after and teacher" if len(found) > 2 else "Before and after"
        status = self.session.jobs.status
        status.message = f"{shown} are in the Similarity widget"
        if not self.session.has_query:
            status.message += ": click on the slide"


_TRAINING = (*LEARNING, "timm", "napari_mcm.core.mcm.finetune")


def finetune_run(config: FinetuneConfig, ready: Callable[[], None]) -> Job[Path]:
    """Fine-tune on slides, or on those in folders, and return the run's folder.

    Parameters
    ----------
    config : FinetuneConfig
        All options.
    ready : callable
        Waits until drawn masks are written.
    """
    from napari_mcm.core.slides.find import find_slides

    module = yield from import_modules(_TRAINING)
    yield from run_in_thread("Saving the mask", ready)
    slides = yield from run_in_thread("Looking for slides", find_slides, config.slides)
    config = config.model_copy(update={"slides": slides})
    with explain_out_of_memory(WINDOWS, config, config.out):
        result = yield from module.finetune(reserve_gui_core(config))
    return Path(result.run_dir)


def resume_run(folder: Path) -> Job[Path]:
    """Resume a run, and return its folder."""
    module = yield from import_modules(_TRAINING)
    with explain_out_of_memory(WINDOWS, read_config(folder), folder):
        result = yield from module.resume_finetune(folder)
    return Path(result.run_dir)


def compute_several(requests: Sequence[FeatureRequest]) -> Job[list[LoadedFeatures]]:
    """Compute features with several encoders, one after the other."""
    found, stages = [], Stages(*[1.0] * len(requests))
    for request in requests:
        found.append((yield from stages.next(compute_features(request))))
    return found
