"""Which map of classes is shown, whether it is being made, and how it is to be trusted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.viewer.labelling.class_maps import KINDS, MapKind
from napari_mcm.viewer.qt.helpers import connect_deferred, note

if TYPE_CHECKING:
    from napari_mcm.viewer.labelling.context import LabellingContext

_TIPS: dict[MapKind, str] = {
    "class": "The likeliest class of each patch; grey where it is unsure",
    "probability": "The probability of the class that is chosen in the list",
    "unsure": "How unsure the class of each patch is: label where it is bright",
}

_TITLE, _BUSY = "Map", "Map \N{CLOCKWISE OPEN CIRCLE ARROW}"
"""Title of the row, and with the mark that a newer map is being made."""


class MapPanel(QWidget):
    """Chooses the kind of map; says what to do next, and how good the map is.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        super().__init__()
        self._context = context
        self.kinds = {kind: QPushButton(kind.capitalize()) for kind in KINDS}
        self._group = QButtonGroup(self)
        self._group.setExclusive(False)
        for kind, button in self.kinds.items():
            button.setCheckable(True)
            button.setToolTip(f"{_TIPS[kind]} (key M on the slide: map on or off)")
            button.setAccessibleName(f"Map: {kind}")
            button.clicked.connect(partial(self._use, kind))
        self.title = QLabel(_TITLE)
        # As wide as with its mark: the buttons would move at each label.
        metrics = self.title.fontMetrics()
        self.title.setMinimumWidth(metrics.horizontalAdvance(_BUSY) + 2)
        self.sentence, self.trust = note(), note()
        self._lay_out()
        connect_deferred(
            self.refresh,
            context.classifier.changed,
            context.maps.changed,
            context.trust.changed,
            context.labels.noted,
            context.session.labels.changed,
        )
        self.refresh()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(3)
        row.addWidget(self.title)
        for button in self.kinds.values():
            row.addWidget(button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(row)
        column.addWidget(self.sentence)
        column.addWidget(self.trust)

    def refresh(self) -> None:
        """Show the state of classifier and map."""
        context = self._context
        fit, maps = context.classifier.fit, context.maps
        has_map = fit is not None and fit.classifier is not None
        for kind, button in self.kinds.items():
            button.setEnabled(has_map)
            button.setChecked(has_map and maps.visible and kind == maps.kind)
        busy = context.classifier.busy
        self.title.setText(_BUSY if busy else _TITLE)
        self.title.setToolTip("A map of newer labels is being made" if busy else "")
        sentence = self.next_thing()
        self.sentence.setText(sentence)
        self.sentence.setVisible(bool(sentence))
        trust = "" if busy and not has_map else context.trust.text
        self.trust.setText(trust)
        self.trust.setVisible(bool(trust))

    def next_thing(self) -> str:
        """Return what happened or what to do next, in a sentence or two."""
        context, parts = self._context, []
        fit = context.classifier.fit
        if context.labels.note:
            parts.append(context.labels.note)
        if context.classifier.given is not None:
            parts.append(
                f"Classes by {context.classifier.given_name}: labels do not change them"
            )
        if fit is not None and fit.problem:
            parts.append(fit.problem)
        if fit is not None and fit.rows is not None:
            if fit.rows.labelled.outside:
                parts.append(
                    f"{fit.rows.labelled.outside:,} labels lie on no patch with features"
                )
            if fit.rows.missing:
                names = [fit.labels.slide_name(one) for one in fit.rows.missing]
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(
                    f"Labels of {', '.join(names[:3])}{more} do not count: no features "
                    "of this encoder were found. Open these slides"
                )
        return ". ".join(part.rstrip(".") for part in parts)

    def _use(self, kind: MapKind) -> None:
        maps = self._context.maps
        if maps.visible and maps.kind == kind:
            # A second press hides the map, as the key M does.
            self._context.session.layers.look.use_visible(False)
            self.refresh()
        else:
            maps.use_kind(kind)
