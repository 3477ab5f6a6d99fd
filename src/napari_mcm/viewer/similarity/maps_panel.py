"""The part that chooses the visible map, the difference and the range of colours."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.heatmaps.color_limits import Limits
from napari_mcm.core.heatmaps.heatmap import DIFFERENCE as MOST
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers.look import SIMILARITY_SLOTS
from napari_mcm.viewer.qt.color_strip import Legend
from napari_mcm.viewer.qt.helpers import (
    connect_deferred,
    narrow,
    note,
    set_shown,
    short_names,
)
from napari_mcm.viewer.similarity.look_controls import LookControls
from napari_mcm.viewer.similarity.maps import DIFFERENCE
from napari_mcm.viewer.similarity.shortcuts import with_key

if TYPE_CHECKING:
    from napari_mcm.viewer.similarity.context import SimilarityContext

RANGES: dict[str, Limits] = {
    "Typical of the encoder": "encoder",
    "Range of each map": "robust",
    "Fixed, −1 to 1": "fixed",
}
_ENDS = ("dissimilar", "similar")


class MapsPanel(QWidget):
    """The maps of the query: which one is visible, and the legend of its colours.

    Parameters
    ----------
    context : SimilarityContext
        Query, maps and shortcuts of the viewer.

    Attributes
    ----------
    look : LookControls
        How maps are drawn.
    show_slot : dict
        Slot to the button that shows its map.
    pair, range : QComboBox
        The two encoders whose difference is shown, and how the range of colours is
        chosen. They stand in sections of the dock.
    """

    def __init__(self, context: SimilarityContext) -> None:
        session = context.session
        self._context = context
        super().__init__()
        self._session = session
        slots = (*SLOTS, DIFFERENCE)
        self.show_slot = {slot: _segment() for slot in slots}
        self.show_slot[DIFFERENCE].setText("Difference")
        self._group = QButtonGroup(self)
        self.legends = {slot: Legend() for slot in slots}
        self.look = LookControls(context)
        for slot, button in self.show_slot.items():
            self._group.addButton(button)
            button.setToolTip(with_key("Show this map; the next one", "next"))
            button.clicked.connect(partial(self._show, slot))
        self.pair = narrow(QComboBox())
        self.pair.setToolTip(
            with_key(
                "Show where one encoder sees more similarity than another: the "
                f"difference of cosines, in colours from −{MOST:g} to {MOST:g}",
                "difference",
            )
        )
        self.pair.setAccessibleName("Difference of two encoders")
        self.pair.activated.connect(self._use_pair)
        self._pairs: list[tuple[str, str] | None] = []
        self._names: dict[str, str] = {}
        self.problem = note()
        self.range = narrow(QComboBox())
        self.range.addItems(list(RANGES))
        # It has a row of its own.
        self.range.setMinimumContentsLength(max(map(len, RANGES)) - 2)
        self.range.setAccessibleName("Range of colours")
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
            session.layers.look.changed,
            context.areas.changed,
        )
        self.refresh()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        self._choice = QWidget()
        row = QHBoxLayout(self._choice)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(1)
        for button in self.show_slot.values():
            row.addWidget(button, 1)
        column.addWidget(self.look)
        column.addWidget(self._choice)
        for legend in self.legends.values():
            column.addWidget(legend)
        column.addWidget(self.problem)
        self.difference = QWidget()
        row = QHBoxLayout(self.difference)
        row.setContentsMargins(0, 0, 0, 0)
        label = QLabel("Difference")
        label.setBuddy(self.pair)
        row.addWidget(label)
        row.addWidget(self.pair, 1)

    def refresh(self) -> None:
        """Show the existing maps, their legends and which one is visible."""
        session = self._session
        queries, slide = self._context.queries, session.slide
        maps = dict(queries.maps())
        maps[DIFFERENCE] = queries.drawn.difference
        set_shown(self, any(maps.values()))
        shown = queries.drawn.shown()
        available = [slot for slot in SLOTS if slide is not None and maps.get(slot)]
        self._name(available)
        self._choice.setVisible(len(available) > 1)
        for slot, button in self.show_slot.items():
            heatmap = maps.get(slot)
            exists = heatmap is not None and slide is not None
            button.setVisible(exists or (slot == DIFFERENCE and len(available) > 1))
            button.setChecked(exists and slot in shown)
            # Only legends of visible maps: all of them would fill the dock.
            # An outline has no colours.
            plain = slot in SIMILARITY_SLOTS and session.layers.look.style == "outline"
            self.legends[slot].setVisible(exists and slot in shown and not plain)
            if heatmap is not None and slide is not None and slot in shown:
                layer = session.layers.map_of(slide, slot)
                ends = ("less", "more") if slot == DIFFERENCE else _ENDS
                if layer is None:
                    self.legends[slot].show_heatmap(heatmap, *ends)
                    continue
                low, high = layer.contrast_limits
                drawn = replace(heatmap, limits=(float(low), float(high)))
                self.legends[slot].show_heatmap(drawn, *ends, layer.colormap)
        self._refresh_pairs(available)
        self.problem.setText(queries.drawn.problem)
        self.problem.setVisible(bool(queries.drawn.problem))

    def _name(self, available: list[str]) -> None:
        """Name the maps after their encoders, without what all names have in common."""
        loaded = {slot: self._session.features(slot) for slot in available}
        full = {slot: one.label for slot, one in loaded.items() if one is not None}
        self._names = dict(zip(full, short_names(list(full.values())), strict=True))
        for slot, name in self._names.items():
            self.show_slot[slot].setText(name.replace("&", "&&"))
            tip = f"{full[slot]}: show this map and hide the others; the next one"
            self.show_slot[slot].setToolTip(with_key(tip, "next"))
            self.show_slot[slot].setAccessibleName(f"Map of {full[slot]}")
        before, after = self._context.queries.drawn.pair or (available + ["", ""])[:2]
        names = [self._names.get(slot, "") for slot in (after, before)]
        tip = f"Difference, {names[0]} − {names[1]}: show it and hide the maps"
        self.show_slot[DIFFERENCE].setToolTip(with_key(tip, "difference"))

    def _refresh_pairs(self, available: list[str]) -> None:
        pairs = [None, *combinations(available, 2)]
        texts = [
            f"{self._names[pair[1]]} − {self._names[pair[0]]}" if pair else "None"
            for pair in pairs
        ]
        if texts != [self.pair.itemText(i) for i in range(self.pair.count())]:
            self._pairs = pairs
            self.pair.clear()
            for pair, text in zip(pairs, texts, strict=True):
                self.pair.addItem(text, pair)
        now = self._context.queries.drawn.pair
        self.pair.setCurrentIndex(pairs.index(now) if now in pairs else 0)
        set_shown(self.difference, len(available) > 1)

    def _show(self, slot: str) -> None:
        queries = self._context.queries
        if slot == DIFFERENCE and queries.drawn.pair is None:
            queries.switch_difference()
        else:
            queries.show(slot)

    def _use_pair(self) -> None:
        pair = self.pair.currentData()
        self._context.queries.compare(tuple(pair) if pair else None)

    def _use_range(self) -> None:
        self._context.queries.use_limits(RANGES[self.range.currentText()])


def _segment() -> QPushButton:
    button = QPushButton()
    button.setCheckable(True)
    # As wide as the others: a long name is cut, and in the tooltip.
    policy = QSizePolicy.Policy
    button.setSizePolicy(policy.Ignored, policy.Fixed)
    return button
