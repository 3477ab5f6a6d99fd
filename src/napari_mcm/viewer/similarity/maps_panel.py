"""The box that chooses the visible map, the difference and the range of colours."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QLabel,
    QRadioButton,
    QVBoxLayout,
)

from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.heatmap import DIFFERENCE as MOST
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.qt.color_strip import Legend
from napari_mcm.viewer.qt.helpers import connect_deferred, narrow, note
from napari_mcm.viewer.similarity.maps import DIFFERENCE
from napari_mcm.viewer.similarity.shortcuts import with_key

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

RANGES: dict[str, Limits] = {
    "Typical of the encoder": "encoder",
    "Range of each map": "robust",
    "Fixed, −1 to 1": "fixed",
}
NAMES = dict(zip(SLOTS, ("Encoder", "Compared", "Third"), strict=True))
_BUTTONS = ("Encoder", "Compared with", "Third", "Difference")


class MapsPanel(QGroupBox):
    """The box with the maps of the query and their legends.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__("Maps")
        self._session = session
        slots = (*SLOTS, DIFFERENCE)
        self.show_slot = {
            slot: QRadioButton(text) for slot, text in zip(slots, _BUTTONS, strict=True)
        }
        self.legends = {slot: Legend() for slot in slots}
        for slot, button in self.show_slot.items():
            tip = "Show this map and hide the others; the next one"
            button.setToolTip(with_key(tip, "next"))
            button.clicked.connect(partial(context.queries.show, slot))
        self.pair = narrow(QComboBox())
        self.pair.setToolTip(
            with_key(
                "Show where one encoder sees more similarity than another: the "
                f"difference of cosines, in colours from −{MOST:g} to {MOST:g}",
                "difference",
            )
        )
        self.pair.activated.connect(self._use_pair)
        self._pairs: list[tuple[str, str] | None] = []
        self.problem = note()
        self.range = narrow(QComboBox())
        self.range.addItems(list(RANGES))
        self.range.setToolTip(
            "From the 2nd to the 98th percentile: of many queries to this encoder, or "
            "of each map; or fixed, the same for all encoders"
        )
        self.range.activated.connect(self._use_range)
        self._lay_out()
        connect_deferred(
            self.refresh,
            session.slide_changed,
            session.features_changed,
            context.query_changed,
        )
        self.refresh()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        maps = QGridLayout()
        for place, button in enumerate(self.show_slot.values()):
            maps.addWidget(button, *divmod(place, 2))
        column.addLayout(maps)
        for legend in self.legends.values():
            column.addWidget(legend)
        column.addWidget(self.problem)
        form = QFormLayout()
        self._pair_label = QLabel("Difference")
        for label, field in (
            (self._pair_label, self.pair),
            (QLabel("Colours"), self.range),
        ):
            label.setBuddy(field)
            form.addRow(label, field)
        column.addLayout(form)

    def refresh(self) -> None:
        """Show the existing maps, their legends and which one is visible."""
        session = self._session
        queries, slide = self._context.queries, session.slide
        maps = dict(queries.maps())
        maps[DIFFERENCE] = queries.drawn.difference
        self.setVisible(any(maps.values()))
        shown = queries.drawn.shown()
        for slot, button in self.show_slot.items():
            heatmap = maps.get(slot)
            available = heatmap is not None and slide is not None
            # Only legends of visible maps: all of them would fill the dock.
            self.legends[slot].setVisible(available and slot in shown)
            button.setVisible(available)
            if heatmap is not None:
                if slot == DIFFERENCE:
                    self.legends[slot].show_heatmap(heatmap, "less", "more")
                else:
                    self.legends[slot].show_heatmap(heatmap)
                button.setChecked(slot in shown)
        self._refresh_pairs([slot for slot in SLOTS if maps.get(slot) is not None])
        self.problem.setText(queries.drawn.problem)
        self.problem.setVisible(bool(queries.drawn.problem))

    def _refresh_pairs(self, available: list[str]) -> None:
        pairs = [None, *combinations(available, 2)]
        if pairs != self._pairs:
            self._pairs = pairs
            self.pair.clear()
            for pair in pairs:
                text = f"{NAMES[pair[1]]} − {NAMES[pair[0]]}" if pair else "None"
                self.pair.addItem(text, pair)
        now = self._context.queries.drawn.pair
        self.pair.setCurrentIndex(pairs.index(now) if now in pairs else 0)
        for part in (self.pair, self._pair_label):
            part.setVisible(len(available) > 1)

    def _use_pair(self) -> None:
        pair = self.pair.currentData()
        self._context.queries.compare(tuple(pair) if pair else None)

    def _use_range(self) -> None:
        self._context.queries.use_limits(RANGES[self.range.currentText()])
