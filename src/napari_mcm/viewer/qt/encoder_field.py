"""Fields that name an encoder, or open a file of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psygnal import Signal
from qtpy.QtWidgets import QComboBox, QMenu, QPushButton

from napari_mcm.viewer.qt.helpers import narrow
from napari_mcm.viewer.qt.path_field import ask_file, ask_folder

ENCODERS = (
    "offline:efficientnet_lite0",
    "offline:efficientnet_lite2",
    "resnet18",
    "resnet50",
)
BROWSE = "Browse run…"
LOAD_TIP = (
    "Open features of this slide: napari-mcm's, or those of TRIDENT, CLAM, STAMP, AtlasPatch "
    "or AnnData"
)
_FOREIGN = "*.h5 *.hdf5 *.pt *.h5ad"


class EncoderField(QComboBox):
    """A list of encoders that takes any other, too: a name, or a run.

    Parameters
    ----------
    name : str
        What it is called by screen readers.
    extra : tuple of str
        More to choose from, below the usual ones.
    """

    def __init__(self, name: str, extra: tuple[str, ...] = ()) -> None:
        super().__init__()
        narrow(self)
        self.setEditable(True)
        self.addItems([*ENCODERS, *extra, BROWSE])
        self.setAccessibleName(name)
        self.setToolTip(
            "offline:… needs no network; a timm model's name; or a fine-tuned run"
        )
        self.activated.connect(self._browse_run)

    @property
    def spec(self) -> str:
        """The encoder as the engine takes it; empty where none is chosen."""
        text = str(self.currentText()).strip()
        return "" if text == BROWSE else text

    def offer(self, spec: str) -> None:
        """Add an encoder to the list, first, if it is not in it."""
        if self.findText(spec) < 0:
            chosen = self.currentText()
            self.insertItem(0, spec)
            self.setCurrentText(chosen)

    def offer_runs(self, runs: tuple[Path, ...]) -> None:
        """Add fine-tuned runs to the list, the newest first."""
        for run in reversed(runs):
            self.offer(str(run))

    def _browse_run(self, index: int) -> None:
        if self.itemText(index) != BROWSE:
            return
        folder = ask_folder(self, "A fine-tuned run or encoder")
        self.setCurrentText(folder or self.itemText(0))


class LoadButton(QPushButton):
    """Opens a file of features: ours, which is a folder, or another tool's.

    Parameters
    ----------
    text : str
        On the button.

    Attributes
    ----------
    chosen : Signal
        A file or folder was chosen.
    """

    chosen = Signal(Path)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._recent: tuple[Path, ...] = ()
        # Our feature file is a folder to the system, those of others are files.
        menu = QMenu(self)
        menu.addAction("Features of napari-mcm…", self._browse_folder)
        menu.addAction("File of another tool…", self._browse_file)
        self._separator = menu.addSeparator()
        self.setMenu(menu)

    def offer(self, recent: tuple[Path, ...]) -> None:
        """List files that were opened or made before."""
        menu = self.menu()
        if menu is None or recent == self._recent:
            return
        self._recent = recent
        known: list[Any] = list(menu.actions())
        for action in known[known.index(self._separator) + 1 :]:
            menu.removeAction(action)
        for path in recent:
            # The folder tells the encoder; an ampersand would be a shortcut.
            text = f"{path.name}, in {path.parent.name}".replace("&", "&&")
            made = menu.addAction(text, lambda path=path: self.chosen.emit(path))
            if made is not None:
                made.setToolTip(str(path))

    def _browse_folder(self) -> None:
        folder = ask_folder(self, "A .features.zarr folder")
        if folder:
            self.chosen.emit(Path(folder))

    def _browse_file(self) -> None:
        path = ask_file(
            self,
            "Features of another tool",
            f"Patch features ({_FOREIGN});;All (*)",
        )
        if path:
            self.chosen.emit(Path(path))
