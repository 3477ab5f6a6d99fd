"""Widgets that choose an encoder or open a feature file."""

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
    "Open features of this slide, from napari-mcm, TRIDENT, CLAM, STAMP, AtlasPatch or "
    "AnnData"
)
_FOREIGN = "*.h5 *.hdf5 *.pt *.h5ad"


class EncoderField(QComboBox):
    """An editable list of encoders, which also takes other names and runs.

    Parameters
    ----------
    name : str
        Accessible name for screen readers.
    extra : tuple of str
        More encoders for the end of the list.
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
        """The encoder as the engine takes it; empty if none is chosen."""
        text = str(self.currentText()).strip()
        return "" if text == BROWSE else text

    def offer(self, spec: str) -> None:
        """Add an encoder to the top of the list, unless the list has it."""
        if self.findText(spec) < 0:
            chosen = self.currentText()
            self.insertItem(0, spec)
            self.setCurrentText(chosen)

    def offer_runs(self, runs: tuple[Path, ...]) -> None:
        """Add fine-tuned runs to the top of the list.

        Parameters
        ----------
        runs : tuple of Path
            Folders of the runs, the newest first.
        """
        for run in reversed(runs):
            self.offer(str(run))

    def _browse_run(self, index: int) -> None:
        if self.itemText(index) != BROWSE:
            return
        folder = ask_folder(self, "A fine-tuned run or encoder")
        self.setCurrentText(folder or self.itemText(0))


class LoadButton(QPushButton):
    """A button with a menu to open a feature file.

    Parameters
    ----------
    text : str
        Text of the button.

    Attributes
    ----------
    chosen : Signal
        Emitted with the path of the chosen file or folder.
    """

    chosen = Signal(Path)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._recent: tuple[Path, ...] = ()
        # Two entries, because file dialogs select either folders, such as .features.zarr,
        # or files.
        menu = QMenu(self)
        menu.addAction("Features of napari-mcm…", self._browse_folder)
        menu.addAction("File of another tool…", self._browse_file)
        self._separator = menu.addSeparator()
        self.setMenu(menu)

    def offer(self, recent: tuple[Path, ...]) -> None:
        """List recent feature files in the menu.

        Parameters
        ----------
        recent : tuple of Path
            The files, the newest first.
        """
        menu = self.menu()
        if menu is None or recent == self._recent:
            return
        self._recent = recent
        actions: list[Any] = list(menu.actions())
        for action in actions[actions.index(self._separator) + 1 :]:
            menu.removeAction(action)
        for path in recent:
            # The folder is named after the encoder. Qt takes a single & for a mnemonic.
            text = f"{path.name}, in {path.parent.name}".replace("&", "&&")
            added = menu.addAction(text, lambda path=path: self.chosen.emit(path))
            if added is not None:
                added.setToolTip(str(path))

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
