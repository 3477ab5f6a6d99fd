"""The dock widget *Classes*."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFrame

from napari_mcm.viewer.labelling.class_panel import ClassPanel
from napari_mcm.viewer.labelling.context import labelling_of
from napari_mcm.viewer.labelling.files_panel import FilesPanel
from napari_mcm.viewer.labelling.map_panel import MapPanel
from napari_mcm.viewer.labelling.options_panel import ClassifierOptions
from napari_mcm.viewer.labelling.results_panel import ResultsPanel
from napari_mcm.viewer.labelling.suggestion_panel import SuggestionPanel
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import connect_deferred
from napari_mcm.viewer.qt.summary_section import SummarySection

if TYPE_CHECKING:
    import napari


class ClassesWidget(DockedWidget):
    """Labels patches with classes, and maps the classes of all others.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    # What a fit needs: the first label is as quick as the others.
    needs: ClassVar[tuple[str, ...]] = (
        "sklearn.linear_model",
        "scipy.sparse",
        "shapely",
        "napari_mcm.core.labelling.classifier",
        "napari_mcm.core.labelling.maps",
    )

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._context = context = labelling_of(self.session)
        self.classes, self.map = ClassPanel(context), MapPanel(context)
        self.next, self.results = SuggestionPanel(context), ResultsPanel(context)
        self.options, self.files = ClassifierOptions(context), FilesPanel(context)
        self.section = SummarySection(
            "Encoder, context, and when a patch is unsure", self.options
        )
        self.more = SummarySection(
            "Load, save and merge labels; import regions", self.files
        )
        self.more.summarise("Label files and regions")
        self.classes.regions_wanted.connect(self.files.import_into)
        rules = _rule(), _rule()
        self.stack(
            (
                self.classes,
                self.map,
                self.results,
                rules[0],
                self.next,
                rules[1],
                self.section,
                self.more,
            )
        )
        connect_deferred(
            self._summarise, context.classifier.changed, self.session.slide_changed
        )
        self._summarise()

    def event(self, event: QEvent | None) -> bool:
        """Suggest no more patches once the dock is closed, and answers are out of sight."""
        closed = event is not None and event.type() == QEvent.Type.ParentChange
        if closed and self.parent() is None and hasattr(self, "next"):
            self._context.suggestions.stop()
        return bool(super().event(event))

    def _summarise(self) -> None:
        self.section.summarise(self.options.summary())


def _rule() -> QFrame:
    """Return a thin line between groups."""
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    rule.setFixedHeight(1)
    rule.setStyleSheet("background-color: rgba(128, 128, 128, 110);")
    return rule
