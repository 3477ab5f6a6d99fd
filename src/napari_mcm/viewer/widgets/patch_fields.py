"""Resolution and size of patches, and how much tissue they must hold."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QFormLayout, QSpinBox, QWidget

from napari_mcm.core.grid import GridConfig
from napari_mcm.viewer.session import Session
from napari_mcm.viewer.widgets.parts import follow, narrow

AUTO = "auto"
RESOLUTIONS = (AUTO, "0.25", "0.5", "1", "2")


class PatchFields(QWidget):
    """How patches are laid: the same in all widgets of a viewer.

    Parameters
    ----------
    session : Session
        Of the viewer, which keeps what is chosen.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        fields = GridConfig.model_fields
        self.mpp = narrow(QComboBox())
        self.mpp.setEditable(True)
        self.mpp.addItems(RESOLUTIONS)
        self.mpp.setToolTip(str(fields["mpp"].description))
        self.patch_size = _spin(16, 4096, " px")
        self.patch_size.setToolTip(str(fields["patch_size"].description))
        self.min_tissue = _spin(0, 100, " %")
        self.min_tissue.setSingleStep(5)
        self.min_tissue.setToolTip("Least part of a patch that is tissue")
        self._lay_out()
        self.refresh()
        self.mpp.editTextChanged.connect(self._edited)
        self.patch_size.valueChanged.connect(self._edited)
        self.min_tissue.valueChanged.connect(self._edited)
        follow(session.patches_changed, self.refresh)

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Resolution (µm/px)", self.mpp)
        form.addRow("Patch si&ze", self.patch_size)
        form.addRow("Least tissue", self.min_tissue)

    def grid(self) -> GridConfig:
        """Give the options as the engine takes them.

        Raises
        ------
        ValueError
            If the resolution is not a number above 0.
        """
        text = self.mpp.currentText().strip().lower()
        options = {
            "patch_size": self.patch_size.value(),
            "min_tissue": self.min_tissue.value() / 100,
        }
        if text == AUTO:
            return GridConfig(**options)
        if not 0 < (mpp := float(text)) < 1000:
            raise ValueError(f"{mpp:g} is not between 0 and 1000")
        return GridConfig(mpp=mpp, **options)

    def refresh(self) -> None:
        """Show what the session keeps, unless it is what is typed here."""
        patches = self._session.patches
        try:
            if self.grid() == patches:
                return
        except ValueError:
            pass
        for field in (self.mpp, self.patch_size, self.min_tissue):
            field.blockSignals(True)
        self.mpp.setCurrentText(
            AUTO if patches.mpp == AUTO else format(patches.mpp, "g")
        )
        self.patch_size.setValue(patches.patch_size)
        self.min_tissue.setValue(round(patches.min_tissue * 100))
        for field in (self.mpp, self.patch_size, self.min_tissue):
            field.blockSignals(False)

    def _edited(self) -> None:
        # A number that is half typed is nothing to act on.
        try:
            self._session.use_patches(self.grid())
        except ValueError:
            return


def _spin(least: int, most: int, unit: str) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(least, most)
    spin.setSuffix(unit)
    return spin
