"""The options of an atlas: of which patches, how they are placed and clustered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.atlas import (
    AtlasConfig,
    ClusterConfig,
    MapConfig,
    is_installed,
)
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.app.commands import open_slide, output_folder
from napari_mcm.viewer.atlas.sources import SOURCES, Source, reference_features
from napari_mcm.viewer.qt.command_panel import CommandPanel
from napari_mcm.viewer.qt.helpers import narrow, set_enabled_with_reason
from napari_mcm.viewer.qt.primary_button import PrimaryButton

if TYPE_CHECKING:
    from napari_mcm.core.atlas.config import ClusterMethod, MapMethod
    from napari_mcm.viewer.atlas.controller import AtlasController

_NAMES: dict[Source, str] = {
    "slide": "This slide",
    "project": "Slides of the project",
    "folder": "Slides of the features' folder",
}
_MAPS: dict[MapMethod, str] = {"pca": "PCA", "umap": "UMAP"}
_CLUSTERS: dict[ClusterMethod, str] = {"k-means": "k-means", "leiden": "Leiden"}
_LARGEST_RADIUS = 3
_LEAST_LETTERS = 2
"""Width of fields: narrow docks have two of them in a row."""
_WAIT_MS = 700
"""Delay until another number of clusters counts: the user may still be typing."""


class SourcePanel(QWidget):
    """Of which patches the atlas is made, and the button that makes it.

    Parameters
    ----------
    controller : AtlasController
        The atlas.

    Attributes
    ----------
    source, context : QComboBox
        Which slides, and over which patches features are averaged.
    align : QCheckBox
        Whether the mean of each slide is subtracted.
    make : PrimaryButton
        The button.
    wanted : Signal
        Emitted when the user wants an atlas.
    """

    wanted = Signal()

    def __init__(self, controller: AtlasController) -> None:
        super().__init__()
        self._session = controller.session
        self.source, self.context = narrow(QComboBox()), narrow(QComboBox())
        for source in SOURCES:
            self.source.addItem(_NAMES[source], source)
        self.source.setToolTip("Which patches are on the map; all by one encoder")
        for radius in range(_LARGEST_RADIUS + 1):
            config = NeighbourhoodConfig(radius=radius)
            self.context.addItem(config.describe(), radius)
        self.context.setCurrentIndex(DEFAULT_RADIUS)
        self.context.setToolTip(
            "How much tissue a point stands for: the patch alone, or its features averaged "
            "with those of the patches around it"
        )
        self.align = QCheckBox("Align slides")
        self.align.setToolTip(
            "Subtract the mean features of each slide, so that slides of other stains do "
            "not become clusters of their own. For slides of the same kinds of tissue"
        )
        self.source.currentIndexChanged.connect(self._source_changed)
        self.make = PrimaryButton("Ma&ke the atlas", primary=True)
        self.make.clicked.connect(self._want)
        self._lay_out()
        self._source_changed()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Patches of", self.source)
        form.addRow("Context", self.context)
        form.addRow(self.align)
        self._form = form
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(form)
        column.addWidget(self.make)

    def _want(self) -> None:
        self.wanted.emit()

    def _source_changed(self, *_: object) -> None:
        self.align.setVisible(self.chosen != "slide")

    @property
    def chosen(self) -> Source:
        """Which features the user chose."""
        return SOURCES[max(self.source.currentIndex(), 0)]

    @property
    def neighbourhood(self) -> NeighbourhoodConfig:
        """Over which patches features are averaged."""
        return NeighbourhoodConfig(radius=max(self.context.currentIndex(), 0))

    @property
    def align_slides(self) -> bool:
        """Whether the mean of each slide is subtracted."""
        return self.chosen != "slide" and self.align.isChecked()

    def refresh(self) -> None:
        """Say why there can be no atlas yet."""
        reason = ""
        if self._session.slide is None:
            reason = "open a slide"
        elif reference_features(self._session) is None:
            reason = "compute or open features of the slide, in the dock Similarity"
        tip = "Put the patches into clusters, and place them on a map"
        set_enabled_with_reason(self.make, tip, reason)


class MethodPanel(QWidget):
    """How patches are placed, coloured and clustered; a change counts at once.

    Parameters
    ----------
    colour : QWidget
        What chooses the colours of points.

    Attributes
    ----------
    map, algorithm : QComboBox
        The methods.
    count : QSpinBox
        Number of clusters of k-means.
    changed : Signal
        Emitted when the user changed something.
    """

    changed = Signal()

    def __init__(self, colour: QWidget) -> None:
        super().__init__()
        self.map, self.algorithm = narrow(QComboBox()), narrow(QComboBox())
        for combo in (self.map, self.algorithm):
            combo.setMinimumContentsLength(_LEAST_LETTERS)
        self.algorithm.setMinimumContentsLength(_LEAST_LETTERS + 4)
        for method, title in _MAPS.items():
            self.map.addItem(title, method)
        for algorithm, title in _CLUSTERS.items():
            self.algorithm.addItem(title, algorithm)
        self.map.setAccessibleName("Method of the map")
        self.algorithm.setAccessibleName("Method of the clusters")
        self.count = QSpinBox()
        self.count.setRange(2, 200)
        self.count.setValue(10)
        self.count.setAccessibleName("Number of clusters")
        self.count.setToolTip("Number of clusters of k-means")
        self._explain()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self._tell)
        self.map.activated.connect(self._tell)
        self.algorithm.activated.connect(self._algorithm_chosen)
        self.count.valueChanged.connect(self._count_changed)
        self._lay_out(colour)

    def _lay_out(self, colour: QWidget) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        for row, parts in (
            (first, (QLabel("Map"), self.map, QLabel("Colour"), colour)),
            (second, (QLabel("Clusters"), self.algorithm, self.count)),
        ):
            row.setSpacing(4)
            for part in parts:
                row.addWidget(part, int(isinstance(part, QComboBox)))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(first)
        column.addLayout(second)

    def _explain(self) -> None:
        hint = 'pip install "napari-mcm[atlas]"'
        umap, leiden = is_installed("umap"), is_installed("leiden")
        self.map.setToolTip(
            "PCA: at once. UMAP: groups stand out more; "
            + ("minutes for 20,000 patches" if umap else f"it needs {hint}")
        )
        self.algorithm.setToolTip(
            "k-means: as many clusters as you say. Leiden finds their number itself"
            + ("" if leiden else f"; it needs {hint}")
        )

    def _tell(self, *_: object) -> None:
        self.changed.emit()

    def _count_changed(self, _count: int) -> None:
        self._timer.start()

    def _algorithm_chosen(self, *_: object) -> None:
        self.count.setVisible(self.clusters.algorithm == "k-means")
        self.changed.emit()

    @property
    def clusters(self) -> ClusterConfig:
        """Options of the clusters."""
        algorithm = list(_CLUSTERS)[max(self.algorithm.currentIndex(), 0)]
        return ClusterConfig(algorithm=algorithm, count=self.count.value())

    @property
    def layout_of_map(self) -> MapConfig:
        """Options of the map."""
        return MapConfig(method=list(_MAPS)[max(self.map.currentIndex(), 0)])

    def show_config(self, config: AtlasConfig) -> None:
        """Show how an atlas was made, without asking for another one."""
        self._timer.stop()
        self.map.setCurrentIndex(list(_MAPS).index(config.map.method))
        clusters = config.clusters
        self.algorithm.setCurrentIndex(list(_CLUSTERS).index(clusters.algorithm))
        blocked = self.count.blockSignals(True)
        self.count.setValue(clusters.count)
        self.count.blockSignals(blocked)
        self.count.setVisible(clusters.algorithm == "k-means")


def command_panel(controller: AtlasController) -> CommandPanel:
    """Return the button that copies the atlas as a command.

    Parameters
    ----------
    controller : AtlasController
        The atlas.
    """

    def make() -> Command:
        if controller.atlas is None:
            raise ValueError("Make an atlas first")
        metadata = open_slide(controller.session)
        out: Path = output_folder(metadata) / "atlas"
        config = controller.atlas.config.model_copy(update={"out": out})
        return Command("atlas", config, "features")

    return CommandPanel(make, controller.session.report_error)
