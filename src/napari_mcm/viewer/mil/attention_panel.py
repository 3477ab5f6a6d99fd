"""Show what a run predicts of the open slide, with its attention and top patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.thumbnails import TopPatch
from napari_mcm.viewer.mil.attention_controller import ShownAttention
from napari_mcm.viewer.mil.run import MilRun
from napari_mcm.viewer.qt.color_strip import ColorStrip
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.qt.thumbnail_strip import ThumbnailStrip

if TYPE_CHECKING:
    from pathlib import Path

    from napari_mcm.core.mil.attention_maps import Scaling

SCALINGS: dict[Scaling, str] = {
    "rank": "Rank: structure",
    "minmax": "Min. to max.",
    "raw": "Raw weights",
}
_PREDICT = "Predict the class of the open slide, and draw the attention"


class AttentionPanel(QGroupBox):
    """Show the prediction of the open slide, its attention and its top patches.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    as_command : callable
        Returns the command that does the same.

    Attributes
    ----------
    predict_requested : Signal
        The open slide is to be predicted.
    features_changed : Signal
        Another folder of features (Path or None) is chosen.
    class_chosen : Signal
        The attention to a class (its index) is to be drawn.
    scaling_chosen : Signal
        Another scaling (its name) is to be drawn.
    patch_chosen : Signal
        The view is to go to a patch (TopPatch).
    """

    predict_requested = Signal()
    features_changed = Signal(object)
    class_chosen = Signal(int)
    scaling_chosen = Signal(str)
    patch_chosen = Signal(object)

    def __init__(self, session: Session, as_command: Callable[[], Command]) -> None:
        super().__init__("Run on this slide")
        self._session = session
        self._run: MilRun | None = None
        self.run = note()
        self.features = PathField(
            "Folder of features",
            "Folder with the slide's features, from the encoder of the run",
        )
        self.predict = QPushButton("Predic&t this slide")
        self.predict.clicked.connect(lambda _: self.predict_requested.emit())
        self.command = CommandMenu("This slide", as_command, session.report_error)
        self.result, self.caveat = note(), note()
        self.shown_class = narrow(QComboBox())
        self.shown_class.setToolTip("Class whose attention is drawn")
        self.shown_class.activated.connect(self.class_chosen.emit)
        self.scaling = narrow(QComboBox())
        for scaling, text in SCALINGS.items():
            self.scaling.addItem(text, scaling)
        self.scaling.setToolTip(
            "Rank shows structure and hides strength; min. to max. shows values; raw "
            "weights sum to 1 over the slide"
        )
        self.scaling.activated.connect(
            lambda _: self.scaling_chosen.emit(self.scaling.currentData())
        )
        self.low, self.colours, self.high = QLabel(), ColorStrip(), QLabel()
        self.strip = ThumbnailStrip(
            "Patches with the greatest attention, best first", "weight"
        )
        self.strip.chosen.connect(self.patch_chosen.emit)
        self._lay_out()
        self._connect()
        self.show_attention(None, "rank")
        self.refresh()

    def _lay_out(self) -> None:
        top = QFormLayout()
        top.addRow("Featu&res", self.features)
        self.content = QWidget()
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        self._class_label = QLabel("Cl&ass")
        self._class_label.setBuddy(self.shown_class)
        form.addRow(self._class_label, self.shown_class)
        form.addRow("&Scaling", self.scaling)
        legend = QHBoxLayout()
        legend.addWidget(self.low)
        legend.addWidget(self.colours, 1)
        legend.addWidget(self.high)
        inner.addWidget(self.result)
        inner.addLayout(form)
        inner.addLayout(legend)
        inner.addWidget(self.caveat)
        self._best = QLabel("Patches with the greatest weight: click to go there")
        self._best.setWordWrap(True)
        inner.addWidget(self._best)
        inner.addWidget(self.strip)
        column = QVBoxLayout(self)
        column.addWidget(self.run)
        column.addLayout(top)
        row = QHBoxLayout()
        row.addWidget(self.predict, 1)
        row.addWidget(self.command)
        column.addLayout(row)
        column.addWidget(self.command.feedback)
        column.addWidget(self.content)

    def _connect(self) -> None:
        connect(self._session.slide_changed, self.refresh)
        connect(self._session.jobs.status.events.state, self.refresh)
        connect(self.features.changed, self._features_changed)

    def refresh(self) -> None:
        """Update the button and the line on the run."""
        run, session = self._run, self._session
        reason = ""
        if session.jobs.status.busy:
            reason = "another job is running"
        elif run is None:
            reason = "no trained run is shown: choose one in Results"
        elif session.slide is None:
            reason = "no slide is open"
        set_enabled_with_reason(self.predict, _PREDICT, reason)
        self.run.setText(
            "No run yet: train one, or choose one in Results."
            if run is None
            else f"Run {run.path.name}: {run.model} on {run.trained_on}."
        )

    def show_run(self, run: MilRun, features: Path | None) -> None:
        """Show the run that predicts, and its folder of features."""
        self._run = run
        self.features.put(features)
        self.refresh()

    def show_attention(self, shown: ShownAttention | None, scaling: Scaling) -> None:
        """Show the attention that is drawn; None where none is.

        Parameters
        ----------
        shown : ShownAttention or None
            Prediction and map of the open slide.
        scaling : {"rank", "minmax", "raw"}
            Scaling of the map.
        """
        self.content.setVisible(shown is not None)
        if shown is not None:
            self._show(shown, scaling)

    def _show(self, shown: ShownAttention, scaling: Scaling) -> None:
        prediction = shown.prediction
        self.result.setText(describe(shown))
        self.caveat.setText(_caveat(shown))
        self.caveat.setVisible(bool(self.caveat.text()))
        self.shown_class.clear()
        self.shown_class.addItems(list(prediction.classes))
        self.shown_class.setCurrentIndex(shown.number)
        for part in (self.shown_class, self._class_label):
            part.setVisible(prediction.per_class)
        self.scaling.setCurrentIndex(self.scaling.findData(scaling))
        low, high = shown.heatmap.limits
        self.low.setText(f"{low:.3g}")
        self.high.setText(f"{high:.3g}")
        self.colours.show_map(shown.heatmap.colormap)
        self.colours.setToolTip(shown.heatmap.title)
        self.colours.setAccessibleDescription(shown.heatmap.title)

    def show_tops(self, tops: Sequence[TopPatch]) -> None:
        """Show the patches with the greatest attention."""
        self.strip.show_patches(tops)
        self._best.setVisible(bool(tops))

    def _features_changed(self) -> None:
        self.features_changed.emit(self.features.path)


def describe(shown: ShownAttention) -> str:
    """Return the prediction as text: ``tumour 0.93, normal 0.07 (3 models)``."""
    prediction = shown.prediction
    classes, probabilities = prediction.classes, prediction.probabilities
    order = probabilities.argsort()[::-1]
    each = ", ".join(f"{classes[i]} {probabilities[i]:.3f}" for i in order)
    count = prediction.attention.shape[-1]
    models = f"{prediction.models} model{'s' if prediction.models > 1 else ''}"
    effective = f"Effective number of attended patches: {shown.effective:,.3g}"
    return f"{each} ({models}). {effective} of {count:,}."


def _caveat(shown: ShownAttention) -> str:
    from napari_mcm.core.encoders.learned_from import warn_of_seen

    parts = (
        []
        if shown.prediction.unseen
        else ["This slide was in the training set; prediction is optimistic."]
    )
    features = shown.prediction.features
    if warning := warn_of_seen(features.encoder, [features.grid.slide]):
        parts.append(f"Warning: {warning}.")
    if shown.prediction.caveat:
        parts.append(f"Note: {shown.prediction.caveat}.")
    return " ".join(parts)
