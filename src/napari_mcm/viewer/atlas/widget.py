"""The dock widget *Atlas*."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.atlas import AtlasConfig
from napari_mcm.viewer.app.imports import DISPLAY
from napari_mcm.viewer.atlas.controller import controller_of
from napari_mcm.viewer.atlas.map_panel import MapPanel
from napari_mcm.viewer.atlas.options_panel import (
    MethodPanel,
    SourcePanel,
    command_panel,
)
from napari_mcm.viewer.atlas.point_colours import PointColours
from napari_mcm.viewer.atlas.selection_panel import SelectionPanel
from napari_mcm.viewer.atlas.sources import reference_features
from napari_mcm.viewer.qt.dock import DockedWidget
from napari_mcm.viewer.qt.helpers import (
    connect,
    connect_deferred,
    in_column,
    while_alive,
)
from napari_mcm.viewer.qt.slide_selector import SlideSelector
from napari_mcm.viewer.qt.summary_section import SummarySection

if TYPE_CHECKING:
    import napari


class AtlasWidget(DockedWidget):
    """Clusters of patches and a 2-D map of them, linked to the slides both ways.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the widget is docked in.
    """

    needs = (*DISPLAY, "sklearn.cluster", "scipy.spatial", "skimage.measure")

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        session = self.session
        self.controller = controller = controller_of(session)
        self.colours = session.part(_colours_of)
        self.slide = SlideSelector(session, brief=True)
        self.slide.setTitle("")
        self.source = SourcePanel(controller)
        self.map = MapPanel(controller, self.colours)
        self.method = MethodPanel(self.map.by)
        self.selection = SelectionPanel(controller)
        self.command = command_panel(controller)
        self.section = SummarySection(
            "The slide, and of which patches the atlas is made",
            in_column(self.slide, self.command),
            self.source,
        )
        self.stack((self.section, self.method, self.map, self.selection))
        self._connect()
        self._show_atlas(True)

    def _connect(self) -> None:
        session, controller = self.session, self.controller
        self.source.wanted.connect(self._make)
        self.method.changed.connect(self._change)
        controller.atlas_changed.connect(while_alive(self._show_atlas))
        connect(self.slide.changed, self._refresh)
        connect_deferred(self._refresh, session.slide_changed, session.features_changed)
        connect(session.jobs.status.events.state, self._job_changed)

    def _make(self) -> None:
        clusters, layout = self.method.clusters, self.method.layout_of_map
        neighbourhood, align = self.source.neighbourhood, self.source.align_slides

        def config(files: tuple[Path, ...]) -> AtlasConfig:
            return AtlasConfig(
                features=files,
                align_slides=align,
                clusters=clusters,
                map=layout,
                neighbourhood=neighbourhood,
            )

        self.controller.make(self.source.chosen, config)

    def _change(self) -> None:
        """Make clusters or the map anew after another choice."""
        atlas = self.controller.atlas
        if atlas is None:
            return
        config = atlas.config.model_copy(
            update={
                "clusters": self.method.clusters,
                "map": self.method.layout_of_map,
            }
        )
        if config != atlas.config:
            self.controller.change(config)

    def _job_changed(self) -> None:
        """Show the options of the atlas again where a change of them failed."""
        atlas = self.controller.atlas
        if not self.session.jobs.status.busy and atlas is not None:
            self.method.show_config(atlas.config)

    def _show_atlas(self, is_other_map: bool) -> None:
        atlas = self.controller.atlas
        self.map.show_atlas(is_other_map)
        self.selection.refresh()
        if atlas is not None:
            self.method.show_config(atlas.config)
        self._refresh()

    def _refresh(self) -> None:
        """Show what the section holds, and hide what cannot be used yet."""
        atlas, session = self.controller.atlas, self.session
        ready = reference_features(session) is not None
        self.source.refresh()
        self.source.make.set_primary(atlas is None)
        self.source.make.setText("Ma&ke the atlas" if atlas is None else "Ma&ke anew")
        self.command.setVisible(atlas is not None)
        self.selection.setVisible(atlas is not None)
        self.method.setVisible(atlas is not None or ready)
        if atlas is None:
            sentence = "" if ready else "No features yet: compute them in Similarity."
            if session.slide is None:
                sentence = "Open a slide first."
            self.section.summarise("Slide and patches", sentence)
        else:
            slides = len(atlas.slides)
            name = atlas.slides[0].name if slides == 1 else f"{slides:,} slides"
            context = atlas.config.neighbourhood.describe()
            aligned = " · aligned" if atlas.config.align_slides else ""
            self.section.summarise(
                f"{name} · {len(atlas):,} patches · {context}{aligned}"
            )
        self.section.require(atlas is None)


def _colours_of(session: object) -> PointColours:
    return PointColours(controller_of(session))  # type: ignore[arg-type]
