"""The tab *Reconstruct*: what a pre-training makes of a picture or of the slide."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.mae.commands import place_command, reconstruct_command
from napari_mcm.viewer.mae.controller import PretrainController
from napari_mcm.viewer.mae.form import PICTURES
from napari_mcm.viewer.mae.live_preview import LookPictures
from napari_mcm.viewer.mae.reconstruct_controller import ReconstructController
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import PathField

PICTURE, SLIDE = range(2)
_WAYS = ("A picture", "The slide, where it is clicked")
_LEAST, _MOST = 5, 95
_PASTE = (
    "Show visible patches as they are. Otherwise one sees what the model makes of them, "
    "which the loss never taught; the errors are of the model's own output either way"
)
_LAYERS = "Show original, masked and reconstruction as layers of the viewer, too"
_NOTE = (
    "A patch's mean and contrast are taken from the image, its structure is the model's. "
    "Errors are on the scale of the loss; visible patches were never taught."
)


class ReconstructPanel(QWidget):
    """Chooses run, image and mask, and shows what is filled in.

    Parameters
    ----------
    controller : ReconstructController
        Which does it.
    training : PretrainController
        Whose run is proposed.
    """

    def __init__(
        self, controller: ReconstructController, training: PretrainController
    ) -> None:
        super().__init__()
        self._controller, self._training = controller, training
        self.run = PathField("Run", "A run of a pre-training, finished or not")
        self.way = narrow(QComboBox())
        self.way.addItems(list(_WAYS))
        self.way.setToolTip("What is filled in")
        self.picture = PathField("Picture", "An image of any size", PICTURES)
        self.ratio = QSlider(Qt.Orientation.Horizontal)
        self.ratio.setRange(_LEAST, _MOST)
        self.ratio.setValue(75)
        self.ratio.setToolTip("Part of the patches that is hidden")
        self.ratio.setAccessibleName("Masked part")
        self.shown_ratio = QLabel()
        self.paste = QCheckBox("Pas&te visible patches")
        self.paste.setChecked(True)
        self.paste.setToolTip(_PASTE)
        self.layers = QCheckBox("As la&yers")
        self.layers.setChecked(True)
        self.layers.setToolTip(_LAYERS)
        self.start = QPushButton("&Reconstruct")
        self.another = QPushButton("Other patche&s")
        self.command = CommandMenu(
            "Reconstruct", self.as_command, controller.session.report_error
        )
        self.about, self.pictures, self.caveat = note(), LookPictures(), note(_NOTE)
        self._lay_out()
        self._connect()
        self._propose()
        self.refresh()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("R&un", self.run)
        form.addRow("Of", self.way)
        form.addRow("", self.picture)
        row = QHBoxLayout()
        row.addWidget(self.ratio, 1)
        row.addWidget(self.shown_ratio)
        form.addRow("Masked part", row)
        checks, buttons = QHBoxLayout(), QHBoxLayout()
        checks.addWidget(self.paste)
        checks.addWidget(self.layers)
        buttons.addWidget(self.start)
        buttons.addWidget(self.another)
        buttons.addWidget(self.command)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        for layout in (form, checks, buttons):
            column.addLayout(layout)
        for part in (self.command.said, self.about, self.pictures, self.caveat):
            column.addWidget(part)

    def _connect(self) -> None:
        controller = self._controller
        connect(self.run.changed, self._run_edited)
        connect(self.picture.changed, self.refresh)
        connect(self.picture.chosen, self.look)
        connect(self._training.run_changed, self._propose)
        connect(controller.changed, self.refresh)
        connect(controller.session.slide_changed, self.refresh)
        self.way.currentIndexChanged.connect(self._way_changed)
        self.ratio.valueChanged.connect(self._ratio_changed)
        self.paste.toggled.connect(lambda on: controller.ask(paste=on))
        self.layers.toggled.connect(controller.draw)
        self.start.clicked.connect(self.look)
        self.another.clicked.connect(
            lambda: controller.ask(seed=controller.asked.seed + 1)
        )

    def refresh(self) -> None:
        """Show the newest reconstruction, and which buttons can be used."""
        controller, of_picture = self._controller, self.way.currentIndex() == PICTURE
        self.shown_ratio.setText(f"{self.ratio.value()} %")
        self.picture.setVisible(of_picture)
        self.start.setVisible(of_picture)
        reason = "" if self.run.path is not None else "no run is chosen"
        if not reason and self.picture.path is None:
            reason = "no picture is chosen"
        set_enabled_with_reason(
            self.start, "Hide patches of the picture, fill them in", reason
        )
        none = "" if controller.look is not None else "nothing is filled in yet"
        set_enabled_with_reason(
            self.another, "Hide other patches of the same image", none
        )
        self.about.setText(self._about(of_picture))
        self.about.setVisible(bool(self.about.text()))
        self.pictures.show_look(controller.look)
        self.caveat.setVisible(controller.look is not None)

    def look(self) -> None:
        """Fill in the picture."""
        if self.picture.path is not None:
            self._controller.look_at_picture(self.picture.path)

    def as_command(self) -> Command:
        """Give what the button would do, for the command line."""
        if self.way.currentIndex() == SLIDE:
            return place_command(self._controller.session, self._controller)
        return reconstruct_command(
            self.run.path, self.picture.path, self._controller.asked
        )

    def stop(self) -> None:
        """Stop listening to clicks."""
        self._controller.listen(False)

    def listen(self) -> None:
        """Listen to clicks, where the slide is meant."""
        self._controller.listen(self.way.currentIndex() == SLIDE)

    def _about(self, of_picture: bool) -> str:
        if self._controller.busy:
            return "Filling in…"
        if of_picture:
            return ""
        if self._controller.session.slide is None:
            return "No slide is open."
        return "Click on the slide: the patch around that place is filled in."

    def _way_changed(self) -> None:
        self.listen()
        self.refresh()

    def _ratio_changed(self) -> None:
        self.shown_ratio.setText(f"{self.ratio.value()} %")
        self._controller.ask(ratio=self.ratio.value() / 100)

    def _run_edited(self) -> None:
        self._controller.use_run(self.run.path)
        self.refresh()

    def _propose(self) -> None:
        training = self._training
        if training.run is not None:
            self.run.put(training.run.path)
        elif training.folder is not None:
            self.run.propose(training.folder)
