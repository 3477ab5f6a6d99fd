"""The dock widget *Similarity*."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFormLayout, QFrame, QWidget

from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.app.found import found_features
from napari_mcm.viewer.app.persistence import open_sections, remember_section
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    in_column,
    note,
    while_alive,
)
from napari_mcm.viewer.qt.patch_fields import PatchOptions
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.qt.summary_section import SummarySection
from napari_mcm.viewer.similarity.area_panel import AreaPanel
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.cross_slide_panel import CrossSlidePanel
from napari_mcm.viewer.similarity.encoder_panel import EncoderPanel
from napari_mcm.viewer.similarity.maps_panel import MapsPanel
from napari_mcm.viewer.similarity.query_panel import QueryPanel
from napari_mcm.viewer.similarity.shortcuts import KEY_HELP
from napari_mcm.viewer.similarity.top_patches import TopPatchesPanel

if TYPE_CHECKING:
    import napari


class SimilarityWidget(DockedWidget):
    """Queries the features of the active slide, by up to three encoders, with clicks.

    What is set once, the slide and its encoders, folds to one line each; what a query
    shows and changes is in sight. Parts that cannot be used yet are hidden, and one
    sentence says what to do next.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        self._context = context = context_of(session)
        self.slide = SlideSelector(session)
        self.options = PatchOptions(session)
        self.first = EncoderPanel("Encoder", session, "first", self.options)
        self.second = EncoderPanel("Compare with", session, "second", self.options)
        self.third = EncoderPanel("And with", session, "third", self.options)
        self.second.encoder.setCurrentIndex(1)
        self.third.encoder.setCurrentIndex(2)
        self.third.setToolTip(
            "For example the teacher, beside a student before and after"
        )
        self.query, self.maps = QueryPanel(context), MapsPanel(context)
        self.area, self.gallery = AreaPanel(context), TopPatchesPanel(context)
        self.cross_slide = CrossSlidePanel(context)
        self.sections = self._make_sections()
        self.stack(self._parts())
        for part in (self.first, self.second, self.third):
            part.failed.connect(self.show_problem)
        self._connect()
        self._refresh()

    def _make_sections(self) -> dict[str, SummarySection]:
        """Return the sections that fold to a line, by the name they are remembered by."""
        self.slide.setTitle("")
        opening = in_column(self.slide.missing, self.slide.opening)
        encoder = in_column(self.first, self.options)
        compare = in_column(self.second, self.third, self.maps.difference)
        more = QWidget()
        form = QFormLayout(more)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Combine examples by", self.query.pool)
        form.addRow("Range of colours", self.maps.range)
        form.addRow(note(KEY_HELP))
        return {
            "slide": SummarySection(
                "The slide, its size and resolution; open other slides",
                self.slide,
                opening,
                self.slide.choice,
            ),
            "encoder": SummarySection(
                "The encoder, its patches, and its feature file",
                encoder,
                self.first.action,
            ),
            "compare": SummarySection("Compare with other encoders", compare),
            "other slides": SummarySection(
                "Search all slides for the query", self.cross_slide
            ),
            "more": SummarySection("Rare options, and all keys", more),
        }

    def _parts(self) -> tuple[QWidget, ...]:
        sections, self._rules = self.sections, [_rule(), _rule()]
        return (
            sections["slide"],
            sections["encoder"],
            sections["compare"],
            self._rules[0],
            self.maps,
            self.query.around,
            self.area,
            self._rules[1],
            self.query,
            self.gallery,
            sections["other slides"],
            sections["more"],
        )

    def _connect(self) -> None:
        session, context = self.session, self._context
        for part in (self.slide, self.first, self.second, self.third):
            connect(part.changed, self._refresh)
        connect(session.tissue.changed, self._refresh)
        connect(context.cross_slide.changed, self._refresh)
        connect_deferred(
            self._refresh,
            context.query_changed,
            session.slide_changed,
            session.features_changed,
        )
        connect_deferred(self._reveal_search, context.cross_slide.place_shown)
        connect(context.no_features_at_click, self._answer_click)
        for name, section in self.sections.items():
            section.opened.connect(partial(self._remember, name))
            section.opened.connect(partial(self._reveal, section))
        session.disk.submit(
            f"sections {id(self)}",
            open_sections,
            while_alive(self._restore),
            session.report_error,
        )

    def _refresh(self) -> None:
        """Show what the sections hold, and hide what cannot be used yet."""
        session, sections = self.session, self.sections
        ready = session.metadata is not None and session.metadata.mpp is not None
        loaded = [slot for slot in SLOTS if session.features(slot) is not None]
        has_query = self._context.query is not None
        self.slide.choice.setVisible(self.slide.choice.count() > 1)
        sections["slide"].summarise(self.slide.summary(), self.slide.sentence)
        sections["slide"].require(not ready)
        sections["encoder"].summarise(
            self.first.summary()
            if "first" in loaded
            else f"Encoder: {self.first.summary()}",
            self.first.sentence,
        )
        sections["encoder"].require(ready and "first" not in loaded)
        others = [p for p in (self.second, self.third) if p.loaded is not None]
        warnings = " ".join(p.sentence for p in others if p.sentence)
        names = ", ".join(p.loaded.label for p in others if p.loaded is not None)
        sections["compare"].summarise(
            f"Compared with {names}" if names else self._offer_comparison(),
            warnings,
        )
        sections["encoder"].setVisible(ready)
        sections["compare"].setVisible(ready and bool(loaded))
        sections["other slides"].summarise(self.cross_slide.summary())
        sections["other slides"].setVisible(has_query)
        sections["more"].summarise("More options, and keys")
        sections["more"].setVisible(bool(loaded))
        self.query.around.setVisible(bool(loaded))
        self._rules[0].setVisible(bool(loaded))
        self._rules[1].setVisible(has_query)

    def _answer_click(self) -> None:
        """Say in the dock and in the status bar why a click has found nothing."""
        self.session.viewer.status = self.first.answer_click()

    def _offer_comparison(self) -> str:
        offered = len(found_features(self.session).offered)
        return "Compare with another encoder" + (
            f" ({offered} on disk)" * bool(offered)
        )

    def _restore(self, opened: dict[str, bool]) -> None:
        """Open the sections that the user left open."""
        for name, section in self.sections.items():
            section.set_open(opened.get(_key(name), section.is_open))

    def _reveal(self, section: SummarySection, is_open: bool) -> None:
        """Scroll to what the user opened."""
        if is_open:
            self.column.reveal(section)

    def _reveal_search(self) -> None:
        """Keep what was found in sight on the slide that it has led to."""
        section = self.sections["other slides"]
        if section.is_open:
            self.column.reveal(section)

    def _remember(self, name: str, is_open: bool) -> None:
        key, session = _key(name), self.session
        session.disk.submit(
            f"section {name}",
            lambda: remember_section(key, is_open),
            _ignore,
            session.report_error,
        )


def _key(name: str) -> str:
    return f"similarity: {name}"


def _ignore(_: object) -> None:
    """Take no notice of the end of writing."""


def _rule() -> QFrame:
    """Return a thin line between groups."""
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    rule.setFixedHeight(1)
    rule.setStyleSheet("background-color: rgba(128, 128, 128, 110);")
    return rule
