"""How far the map of classes can be trusted: accuracy, and whether labels change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.errors import LabelError
from napari_mcm.core.labelling import (
    CALIBRATED_FROM,
    HeldOutAccuracy,
    held_out_accuracy,
)
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.labelling.fitting import slide_of_features
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari_mcm.core.labelling.training import LabelledFeatures
    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.labelling.fitting import ClassifierController, Fit

WAIT_MS = 500
"""Delay from a new map to its accuracy, in milliseconds: more labels may follow."""
STEP = 10
"""Number of labels whose effect on the map is stated."""
_MOST_MAPS = 60
_MEASURE = "accuracy"


@dataclass(frozen=True, eq=False)
class _Map:
    """What a map was after so many labels."""

    count: int
    loaded: LoadedFeatures
    codes: NDArray[np.int16]


class TrustController:
    """Measures held-out accuracy, and how much the last labels changed the map.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    classifier : ClassifierController
        The classifier that is judged.

    Attributes
    ----------
    accuracy : HeldOutAccuracy or None
        Of the newest classifier; None while there are too few labels.
    problem : str
        Why there is no accuracy; empty otherwise.
    updating : bool
        Whether the accuracy of the newest classifier is still to come.
    change : tuple or None
        Number of labels, and the fraction of patches whose class they changed; None
        before there were enough.
    changed : Signal
        Emitted when any of these changed.
    """

    changed = Signal()

    def __init__(self, session: Session, classifier: ClassifierController) -> None:
        self._session, self._classifier = session, classifier
        self.accuracy: HeldOutAccuracy | None = None
        self.problem = ""
        self.updating = False
        self._judged: Fit | None = None
        self.change: tuple[int, float] | None = None
        self._maps: list[_Map] = []
        self._worker = BackgroundWorker("accuracy")
        self._timer = single_shot(WAIT_MS, self._measure)
        classifier.fitted.connect(self._fitted)

    @property
    def text(self) -> str:
        """Accuracy, calibration and change in a few words; empty without a classifier."""
        fit = self._classifier.fit
        if fit is None or fit.classifier is None or fit.rows is None:
            return ""
        parts = [self._accuracy_text()]
        if not fit.classifier.calibrated:
            count = len(fit.rows)
            more = CALIBRATED_FROM - count
            parts.append(
                f"uncalibrated: {more} more label{'' if more == 1 else 's'} needed"
                if more > 0
                else "uncalibrated: a class has one label only"
            )
        if self.change is not None:
            count, share = self.change
            parts.append(
                f"the last {count} labels changed {_percent(share)} of the map"
            )
        return " · ".join(part for part in parts if part)

    def _accuracy_text(self) -> str:
        if self.accuracy is None:
            return self.problem
        one = self.accuracy
        interval = f"[{one.low:.2f}, {one.high:.2f}]"
        parts = [f"Held-out accuracy {one.mean:.2f} {interval}", self._over(one)]
        if self.updating or self._classifier.busy:
            parts.append("(updating…)")
        return " ".join(parts)

    def _over(self, one: HeldOutAccuracy) -> str:
        """Return what was held out, why, and of which slides if not of this one."""
        fit = self._judged
        if fit is None or fit.rows is None:
            return ""
        rows, loaded = fit.rows.labelled, self._classifier.loaded
        parts = ["over slides" if one.by_slide else "over labels"]
        own = loaded is not None and slide_of_features(loaded) in rows.slides
        if not own:
            parts.append(
                f"of {listed([fit.labels.slide_name(x) for x in rows.slides])}"
            )
        if not one.by_slide and len(rows.slides) > 1:
            parts[-1] += f": {_why_labels(rows)}"
        return " ".join(parts)

    def _fitted(self, fit: Fit) -> None:
        self._note_map(fit)
        if fit.classifier is None:
            self.accuracy, self.problem = None, ""
            self._worker.drop(_MEASURE)
        else:
            self._timer.start()
        self.updating = fit.classifier is not None and fit.rows is not None
        self.changed.emit()

    def _note_map(self, fit: Fit) -> None:
        """Compare the map with that of ten labels before."""
        self.change = None
        if fit.classifier is None or fit.rows is None:
            return
        loaded, classes = next((one.loaded, one) for one in fit.slides.values())
        places = [fit.labels.names.index(name) for name in fit.classifier.names]
        codes = np.asarray([*places, -2, -1], np.int16)[classes.classes.decided]
        count = len(fit.labels)
        # What was undone since is no history.
        self._maps = [
            one for one in self._maps if one.count < count or one.loaded is not loaded
        ]
        before = [
            one
            for one in self._maps
            if one.loaded is loaded and one.count <= count - STEP
        ]
        if before:
            last = max(before, key=lambda one: one.count)
            known = codes > -2
            share = float((codes != last.codes)[known].mean()) if known.any() else 0.0
            self.change = count - last.count, share
        self._maps.append(_Map(count, loaded, codes))
        del self._maps[:-_MOST_MAPS]

    def _measure(self) -> None:
        fit = self._classifier.fit
        if fit is None or fit.classifier is None or fit.rows is None:
            return
        self._worker.follow(
            _MEASURE,
            partial(_accuracy_of, fit),
            partial(self._measured, fit),
            self._failed,
        )

    def _measured(self, fit: Fit, found: tuple[HeldOutAccuracy | None, str]) -> None:
        if fit is self._classifier.fit:
            self.accuracy, self.problem = found
            self.updating, self._judged = False, fit
            self.changed.emit()

    def _failed(self, problem: str) -> None:
        self.accuracy, self.updating = None, False
        self._session.report_error(problem)
        self.changed.emit()


def _accuracy_of(fit: Fit) -> tuple[HeldOutAccuracy | None, str]:
    """Measure the accuracy of a fit; called in the thread."""
    assert fit.rows is not None and fit.classifier is not None
    rows, classifier = fit.rows.labelled, fit.classifier
    try:
        found = held_out_accuracy(
            rows.features, rows.classes, rows.groups, classifier.config
        )
    except LabelError as error:
        return None, str(error)
    return found, ""


def _why_labels(rows: LabelledFeatures) -> str:
    """Return why whole slides of several could not be held out."""
    used = sorted(set(rows.classes.tolist()))
    single = [
        rows.names[number]
        for number in used
        if len(set(rows.groups[rows.classes == number].tolist())) == 1
    ]
    if not single:
        return "some classes are only on slides that are held out together"
    verb = "is" if len(single) == 1 else "are"
    return f"{listed(single)} {verb} labelled on one slide only"


def listed(names: Sequence[str]) -> str:
    """Return names as ``a, b and c``; at most three, and how many more there are."""
    shown = list(names[:3])
    more = len(names) - len(shown)
    if more:
        shown.append(f"{more:,} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share < 0.1 else 0}f} %"
