"""A line beside a start button: how long the job is going to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_mcm.viewer.app.estimates import Answer, Areas, Estimates
from napari_mcm.viewer.qt.helpers import while_alive

if TYPE_CHECKING:
    from napari_mcm.viewer.app.rates import JobTiming, Work
    from napari_mcm.viewer.app.session import Session

_WAIT_MS = 300
"""Time without another edit after which an estimate is asked for."""
_MEASURED = "As earlier runs of this kind on this computer took."
_GUESSED = (
    "Guessed from the number of multiply-adds: no run of this kind has ended on this "
    "computer yet."
)


class EstimateLine(QLabel):
    """Say how long a job is going to take, and warn where that is days on a CPU.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    advice : str
        What to change where the job would take too long: ``"choose fewer epochs"``.

    Attributes
    ----------
    changed : Signal
        Emitted when there is another answer.
    answer : Answer or None
        The latest answer; None without one.
    """

    changed = Signal()

    def __init__(self, session: Session, advice: str) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setAccessibleName("Estimated duration")
        self.answer: Answer | None = None
        self._advice = advice
        self._estimates = session.part(Estimates)
        self._work: Callable[[Areas], Work] | None = None
        # What the next answer is for, and what the latest one is for.
        self._asked: Any = None
        self._answered: Any = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self._ask)
        self._show(None)

    def ask(self, config: Any, work: Callable[[Any, Areas], Work] | None) -> None:
        """Ask how long a job would take; the answer is shown when it comes.

        Parameters
        ----------
        config : object
            Options of the job; None where they are not complete.
        work : callable or None
            Describes the job of these options; called in a thread.
        """
        if config is None or work is None:
            self._timer.stop()
            self._asked = self._work = None
            self._take(None)
        elif config != self._asked:
            self._asked = config
            self._work = lambda areas: work(config, areas)
            self._timer.start()

    def again(self) -> None:
        """Ask again with the same options, as after a job has ended."""
        if self._work is not None:
            self._timer.start()

    def timing(self, config: Any) -> JobTiming | None:
        """Return what measures a job while it runs.

        Parameters
        ----------
        config : object
            Options of the job; None is returned where the answer is for other ones.
        """
        if self.answer is None or config != self._answered:
            return None
        return self.answer.timing()

    @property
    def is_long(self) -> bool:
        """Whether the job would take more than 12 hours on a CPU."""
        return self.answer is not None and self.answer.is_long

    def _ask(self) -> None:
        if self._work is not None:
            asked = self._asked
            take = while_alive(self._take)
            self._estimates.ask(str(id(self)), self._work, lambda a: take(a, asked))

    def _take(self, answer: Answer | None, asked: Any = None) -> None:
        if asked is self._asked:
            self.answer, self._answered = answer, asked
            self._show(answer)
            self.changed.emit()

    def _show(self, answer: Answer | None) -> None:
        text = answer.text if answer is not None else ""
        if answer is not None and answer.is_long:
            text = f"⚠ Takes {text} on this computer's processor: {self._advice}."
        elif text:
            text = f"Takes {text}."
        self.setText(text)
        self.setVisible(bool(text))
        measured = answer is not None and answer.estimate and answer.estimate.measured
        self.setToolTip(_MEASURED if measured else _GUESSED)
