"""The dock widget *Sections*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.registration.carry_panel import CarryPanel
from napari_mcm.viewer.registration.carrying import carrier_of
from napari_mcm.viewer.registration.controller import NEEDS, sections_of
from napari_mcm.viewer.registration.register_panel import RegisterPanel

if TYPE_CHECKING:
    import napari


class SectionsWidget(DockedWidget):
    """Registers serial sections, links their views, and carries annotations over.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    is_first = False
    needs = ("pandas", *NEEDS, "napari_mcm.core.sections")

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        sections = sections_of(self.session)
        self.slide = SlideSelector(self.session, brief=True)
        self.registration = RegisterPanel(sections)
        self.carrying = CarryPanel(sections, carrier_of(self.session))
        self.stack((self.slide, self.registration, self.carrying))
