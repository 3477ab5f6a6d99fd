"""The tab *Slide*: what a trained run says of the open slide, and where it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

from napari_mcm.viewer.mil.attention import AttentionController, ShownAttention
from napari_mcm.viewer.mil.commands import attention_command
from napari_mcm.viewer.mil.controller import MilController
from napari_mcm.viewer.qt.color_strip import ColorStrip
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import PathField
from napari_mcm.viewer.qt.thumbnail_strip import ThumbnailStrip

if TYPE_CHECKING:
    from napari_mcm.core.mil.attention_maps import Scaling

SCALINGS: dict[Scaling, str] = {
    "rank": "Rank: structure",
    "minmax": "Least to greatest",
    "raw": "Raw weights",
}
_PREDICT = "Predict the class of the open slide, and draw where the models look"


class AttentionPanel(QGroupBox):
    """Predicts the open slide, and shows its attention and top patches.

    Parameters
    ----------
    controller : MilController
        Which has the run.
    attention : AttentionController
        Which asks it.
    """

    def __init__(
        self, controller: MilController, attention: AttentionController
    ) -> None:
        super().__init__("Run on this slide")
        self._controller, self._attention = controller, attention
        self.run = note()
        self.features = PathField(
            "Folder of features",
            "Has the slide's features, by the encoder that the run was trained on",
        )
        self.predict = QPushButton("Predic&t this slide")
        self.predict.clicked.connect(attention.predict)
        self.command = CommandMenu(
            "This slide",
            lambda: attention_command(controller, attention),
            controller.session.report_error,
        )
        self.result, self.caveat = note(), note()
        self.look_at = narrow(QComboBox())
        self.look_at.setToolTip("Class whose attention is drawn")
        self.look_at.activated.connect(attention.use_class)
        self.scaling = narrow(QComboBox())
        for scaling, text in SCALINGS.items():
            self.scaling.addItem(text, scaling)
        self.scaling.setToolTip(
            "Rank shows structure and hides strength; least to greatest shows values; "
            "raw weights sum to 1 over the slide"
        )
        self.scaling.activated.connect(
            lambda _: attention.use_scaling(self.scaling.currentData())
        )
        self.low, self.colours, self.high = QLabel(), ColorStrip(), QLabel()
        self.strip = ThumbnailStrip(
            "Patches of greatest attention, best first", "weight"
        )
        self.strip.chosen.connect(attention.go_to)
        self._lay_out()
        self._connect()
        self.refresh()

    def _lay_out(self) -> None:
        top = QFormLayout()
        top.addRow("Featu&res", self.features)
        self.content = QWidget()
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        self._class_label = QLabel("Cl&ass")
        self._class_label.setBuddy(self.look_at)
        form.addRow(self._class_label, self.look_at)
        form.addRow("&Scaling", self.scaling)
        legend = QHBoxLayout()
        legend.addWidget(self.low)
        legend.addWidget(self.colours, 1)
        legend.addWidget(self.high)
        inner.addWidget(self.result)
        inner.addLayout(form)
        inner.addLayout(legend)
        inner.addWidget(self.caveat)
        self._best = QLabel("Patches of greatest weight: click to go there")
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
        column.addWidget(self.command.said)
        column.addWidget(self.content)

    def _connect(self) -> None:
        session = self._controller.session
        connect(self._controller.run_changed, self._take_run)
        connect(session.slide_changed, self.refresh)
        connect(session.jobs.status.events.state, self.refresh)
        connect(self.features.changed, self._features_changed)
        connect(self._attention.shown_changed, self.refresh)
        connect(self._attention.tops_changed, self._show_tops)

    def refresh(self) -> None:
        """Show the present slide's prediction, and which buttons can be used."""
        run, session = self._controller.run, self._controller.session
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
            else f"Run {run.path.name}: {run.model} on features of "
            f"{run.encoder or 'an unnamed encoder'}."
        )
        shown = self._attention.shown
        self.content.setVisible(shown is not None)
        if shown is not None:
            self._show(shown)
        self._show_tops()

    def _show(self, shown: ShownAttention) -> None:
        look = shown.prediction
        self.result.setText(describe(shown))
        self.caveat.setText(_caveat(shown))
        self.caveat.setVisible(bool(self.caveat.text()))
        self.look_at.clear()
        self.look_at.addItems(list(look.classes))
        self.look_at.setCurrentIndex(shown.number)
        for part in (self.look_at, self._class_label):
            part.setVisible(look.per_class)
        self.scaling.setCurrentIndex(self.scaling.findData(self._attention.scaling))
        low, high = shown.heatmap.limits
        self.low.setText(f"{low:.3g}")
        self.high.setText(f"{high:.3g}")
        self.colours.show_map(shown.heatmap.colormap)
        self.colours.setToolTip(shown.heatmap.title)
        self.colours.setAccessibleDescription(shown.heatmap.title)

    def _show_tops(self) -> None:
        tops = self._attention.tops
        self.strip.show_patches(tops)
        self._best.setVisible(bool(tops))

    def _take_run(self) -> None:
        self.features.put(self._controller.features)
        self.refresh()

    def _features_changed(self) -> None:
        self._controller.features = self.features.path


def describe(shown: ShownAttention) -> str:
    """Say what is predicted: ``tumour 0.93, normal 0.07``, by how many models."""
    look = shown.prediction
    order = look.probabilities.argsort()[::-1]
    each = ", ".join(f"{look.classes[i]} {look.probabilities[i]:.3f}" for i in order)
    count = shown.prediction.weights.shape[-1]
    models = f"{look.models} model{'s' if look.models > 1 else ''}"
    effective = f"Effective number of attended patches: {shown.effective:,.3g}"
    return f"{each} ({models}). {effective} of {count:,}."


def _caveat(shown: ShownAttention) -> str:
    parts = (
        []
        if shown.prediction.unseen
        else ["These models have learned from this slide."]
    )
    if shown.prediction.caveat:
        parts.append(f"Note: {shown.prediction.caveat}.")
    return " ".join(parts)
