"""What one *Fine-tune* widget works on: a training, its curves, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.viewer.finetune_runs import FinetuneRun, read_run
from napari_mcm.viewer.finetune_tasks import compute_several, finetune_run, resume_run
from napari_mcm.viewer.remembered import RUNS
from napari_mcm.viewer.session import SLOTS
from napari_mcm.viewer.slide_facts import SlideFacts
from napari_mcm.viewer.tasks import FeatureRequest, Loaded
from napari_mcm.viewer.training_desk import TrainingDesk

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.mcm.config import FinetuneConfig
    from napari_mcm.viewer.session import Session


class FinetuneDesk(TrainingDesk):
    """Starts the jobs of the *Fine-tune* widget and keeps what came of them.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    run: FinetuneRun | None

    def __init__(self, session: Session) -> None:
        super().__init__(session, "finetune", RUNS)

    def start(self, config: FinetuneConfig) -> None:
        """Fine-tune, into a new run."""
        assert config.out is not None
        title = f"Fine-tuning {config.student}"
        ready = self.session.disk.wait
        self._start(title, lambda: finetune_run(config, ready), config.out)

    def go_on(self, folder: Path) -> None:
        """Go on with an unfinished run."""
        self._go_on(lambda: resume_run(folder), folder)

    def read(self, folder: Path) -> FinetuneRun | None:
        """Read a finished run, in the background; None where there is none."""
        return read_run(folder)

    def compare(self, requests: list[FeatureRequest]) -> None:
        """Compute features of the present slide before and after, and show them.

        Parameters
        ----------
        requests : list of FeatureRequest
            By the student as it was, by the fine-tuned one, and by the teacher if asked.
        """
        slide = self.session.slide
        if slide is None or self.is_busy():
            return
        name = SlideFacts.of_layer(slide)
        self.session.jobs.start(
            f"Features of {name.name if name else 'the slide'}, before and after",
            lambda: compute_several(requests),
            lambda found: self._compared(slide, found),
        )

    def _trained(self, folder: Path) -> None:
        self.session.jobs.status.message = f"Fine-tuned: {folder}"
        # Its encoder is offered by the other widgets from now on.
        self.session.recent.look()
        self.show_run(folder)

    def _compared(self, slide: Layer, found: list[Loaded]) -> None:
        for slot, loaded in zip(SLOTS, found, strict=False):
            self.session.take_features(slide, slot, loaded)
        shown = "Before, after and teacher" if len(found) > 2 else "Before and after"
        status, query = self.session.jobs.status, self.session.query
        status.message = f"{shown} are in the Similarity widget"
        if query is None:
            status.message += ": click on the slide"
