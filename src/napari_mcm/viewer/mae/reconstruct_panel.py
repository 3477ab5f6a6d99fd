"""Reconstruct masked patches of a picture or of the slide with a run."""

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
from napari_mcm.viewer.mae.live_preview_panel import ReconstructionView
from napari_mcm.viewer.mae.reconstruct_controller import ReconstructController
from napari_mcm.viewer.qt.command_panel import CommandMenu
from napari_mcm.viewer.qt.helpers import connect, narrow, note, set_enabled_with_reason
from napari_mcm.viewer.qt.path_field import PathField

PICTURE, SLIDE = range(2)
_WAYS = ("A picture", "The slide, where it is clicked")
_LEAST, _MOST = 5, 95
_PASTE = (
    "Show visible patches as they are. Otherwise they show the model's output, which "
    "the loss does not train; the errors are those of the output either way"
)
_LAYERS = "Also show original, masked and reconstruction as layers of the viewer"
_NOTE = (
    "Mean and contrast of a patch come from the image, its structure from the model. "
    "Errors are on the scale of the loss, which covers masked patches only."
)


class ReconstructPanel(QWidget):
    """Choose run, image and mask, and show the reconstruction.

    Parameters
    ----------
    controller : ReconstructController
        Reconstructs images.
    training : PretrainController
        Proposes its run.
    """

    def __init__(
        self, controller: ReconstructController, training: PretrainController
    ) -> None:
        super().__init__()
        self._controller, self._training = controller, training
        self.run = PathField("Run", "Run of a pre-training, finished or not")
        self.way = narrow(QComboBox())
        self.way.addItems(list(_WAYS))
        self.way.setToolTip("Image to reconstruct")
        self.picture = PathField("Picture", "An image of any size", PICTURES)
        self.ratio = QSlider(Qt.Orientation.Horizontal)
        self.ratio.setRange(_LEAST, _MOST)
        self.ratio.setValue(75)
        self.ratio.setToolTip("Fraction of the patches that is masked")
        self.ratio.setAccessibleName("Mask ratio")
        self.shown_ratio = QLabel()
        self.paste = QCheckBox("Pas&te visible patches")
        self.paste.setChecked(True)
        self.paste.setToolTip(_PASTE)
        self.layers = QCheckBox("&As layers")
        self.layers.setChecked(True)
        self.layers.setToolTip(_LAYERS)
        self.start = QPushButton("&Reconstruct")
        self.another = QPushButton("Other patche&s")
        self.command = CommandMenu(
            "Reconstruct", self.as_command, controller.session.report_error
        )
        self.about, self.pictures, self.caveat = (
            note(),
            ReconstructionView(),
            note(_NOTE),
        )
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
        form.addRow("Mask ratio", row)
        checks, buttons = QHBoxLayout(), QHBoxLayout()
        checks.addWidget(self.paste)
        checks.addWidget(self.layers)
        buttons.addWidget(self.start)
        buttons.addWidget(self.another)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 8, 0, 0)
        for layout in (form, checks, buttons):
            column.addLayout(layout)
        # All three in a row are wider than a narrow dock.
        column.addWidget(self.command, 0, Qt.AlignmentFlag.AlignLeft)
        for part in (self.command.feedback, self.about, self.pictures, self.caveat):
            column.addWidget(part)

    def _connect(self) -> None:
        controller = self._controller
        connect(self.run.changed, self._run_edited)
        connect(self.picture.changed, self.refresh)
        connect(self.picture.chosen, self.reconstruct)
        connect(self._training.run_changed, self._propose)
        connect(controller.changed, self.refresh)
        connect(controller.session.slide_changed, self.refresh)
        self.way.currentIndexChanged.connect(self._way_changed)
        self.ratio.valueChanged.connect(self._ratio_changed)
        self.paste.toggled.connect(lambda on: controller.ask(paste=on))
        self.layers.toggled.connect(controller.draw)
        self.start.clicked.connect(self.reconstruct)
        self.another.clicked.connect(
            lambda: controller.ask(seed=controller.options.seed + 1)
        )

    def refresh(self) -> None:
        """Show the newest reconstruction, and update the buttons."""
        controller, of_picture = self._controller, self.way.currentIndex() == PICTURE
        self.shown_ratio.setText(f"{self.ratio.value()} %")
        self.picture.setVisible(of_picture)
        self.start.setVisible(of_picture)
        reason = "" if self.run.path is not None else "no run is chosen"
        if not reason and self.picture.path is None:
            reason = "no picture is chosen"
        set_enabled_with_reason(
            self.start, "Mask patches of the picture and reconstruct them", reason
        )
        none = "" if controller.image is not None else "nothing is reconstructed yet"
        set_enabled_with_reason(
            self.another, "Mask other patches of the same image", none
        )
        self.about.setText(self._about(of_picture))
        self.about.setVisible(bool(self.about.text()))
        self.pictures.show_image(controller.image)
        self.caveat.setVisible(controller.image is not None)

    def reconstruct(self) -> None:
        """Reconstruct the picture."""
        if self.picture.path is not None:
            self._controller.reconstruct_picture(self.picture.path)

    def as_command(self) -> Command:
        """Return the command that does what the button would do."""
        if self.way.currentIndex() == SLIDE:
            return place_command(self._controller.session, self._controller)
        return reconstruct_command(
            self.run.path, self.picture.path, self._controller.options
        )

    def stop(self) -> None:
        """Stop listening to clicks."""
        self._controller.listen(False)

    def listen(self) -> None:
        """Listen to clicks, where the slide is chosen."""
        self._controller.listen(self.way.currentIndex() == SLIDE)

    def _about(self, of_picture: bool) -> str:
        if self._controller.busy:
            return "Reconstructing…"
        if of_picture:
            return ""
        if self._controller.session.slide is None:
            return "No slide is open."
        return "Click on the slide to reconstruct the patch around that place."

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
