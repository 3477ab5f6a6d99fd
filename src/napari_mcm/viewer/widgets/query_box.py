"""What was clicked, what the maps show, and how they are coloured."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QLabel,
    QRadioButton,
    QVBoxLayout,
)

from napari_mcm.viewer.session import SLOTS, Limits, Session
from napari_mcm.viewer.widgets.legend import Legend
from napari_mcm.viewer.widgets.parts import follow, narrow, note

RANGES: dict[str, Limits] = {
    "Usual range of the encoder": "encoder",
    "Range of each map": "map",
    "Fixed, −1 to 1": "fixed",
}


class QueryBox(QGroupBox):
    """The present query: where it is, and its maps.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__("Query")
        self._session = session
        self.where = note()
        self.show_slot = {
            slot: QRadioButton(text)
            for slot, text in zip(
                SLOTS, ("&Encoder", "Compared &with", "&Third"), strict=True
            )
        }
        self.range = narrow(QComboBox())
        self.range.addItems(list(RANGES))
        self.range.setToolTip(
            "From the 2nd to the 98th percentile, of many queries to this encoder or "
            "of each map, so that structure shows; or the same for all encoders"
        )
        self.range.activated.connect(self._use_range)
        self.legends = {slot: Legend() for slot in SLOTS}
        for slot, button in self.show_slot.items():
            button.setToolTip("Show this encoder's map and hide the other")
            button.clicked.connect(lambda _=False, slot=slot: self._show(slot))
        self._lay_out()
        follow(session.slide_changed, self.refresh)
        follow(session.features_changed, self.refresh)
        follow(session.query_changed, self.refresh)
        follow(session.missed, self._missed)
        self.refresh()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.addWidget(self.where)
        maps = QGridLayout()
        maps.setColumnStretch(1, 1)
        for row, slot in enumerate(SLOTS):
            maps.addWidget(self.show_slot[slot], row, 0)
            maps.addWidget(self.legends[slot], row, 1)
        column.addLayout(maps)
        form = QFormLayout()
        label = QLabel("&Colours")
        label.setBuddy(self.range)
        form.addRow(label, self.range)
        column.addLayout(form)

    def refresh(self) -> None:
        """Show the present query."""
        session = self._session
        self.where.setText(self._describe())
        query, slide = session.query, session.slide
        for slot in SLOTS:
            heatmap = query.maps.get(slot) if query else None
            self.legends[slot].setVisible(heatmap is not None)
            self.show_slot[slot].setVisible(heatmap is not None)
            if heatmap is None or slide is None:
                continue
            self.legends[slot].show_heatmap(heatmap)
            layer = session.layers.map_of(slide, slot)
            self.show_slot[slot].setChecked(layer is not None and layer.visible)

    def _describe(self) -> str:
        session = self._session
        if not any(session.features(slot) for slot in SLOTS):
            return "Compute or load features, then click on the slide."
        query = session.query
        if query is None:
            return "Click on the slide: similar patches light up."
        unit, at = ("µm", query.um) if query.um else ("px", query.xy)
        lines = [f"x {at[0]:,.1f} {unit}, y {at[1]:,.1f} {unit}"]
        for heatmap in query.maps.values():
            if heatmap is not None:
                lines.append(f"patch {heatmap.query:,} of {len(heatmap.grid):,}")
        return " · ".join(dict.fromkeys(lines))

    def _missed(self) -> None:
        if any(self._session.features(slot) for slot in SLOTS):
            self.where.setText("No patch there: click on tissue.")

    def _use_range(self) -> None:
        self._session.use_limits(RANGES[self.range.currentText()])

    def _show(self, slot: str) -> None:
        if self._session.slide is not None:
            self._session.layers.show_only(self._session.slide, slot)
