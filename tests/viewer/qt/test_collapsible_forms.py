"""The triangle of what is folded is seen in both themes, and says what is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_mcm.core.mil.config import MilConfig
from napari_mcm.viewer.mil.form import MORE
from napari_mcm.viewer.qt.collapsible_forms import CollapsibleForms
from napari_mcm.viewer.qt.option_form import OptionForm


def test_folds_follow_the_theme_and_point_right_until_they_are_open(
    viewer: Any, tmp_path: Path
) -> None:
    fold = CollapsibleForms("More options", OptionForm(MilConfig, MORE))
    viewer.window.add_dock_widget(fold, name="folded", area="bottom")
    viewer.window._qt_window.show()
    button = fold.toggleButton()
    for theme in ("dark", "light", "dark"):
        viewer.theme = theme
        QApplication.processEvents()
        for is_open in (False, True):
            (fold.expand if is_open else fold.collapse)(animate=False)
            drawn = tmp_path / "icon.png"
            button.icon().pixmap(16, 16).save(str(drawn))
            pixels = np.asarray(Image.open(drawn).convert("RGBA")).astype(int)
            solid = pixels[..., 3] > 200
            # As bright as words are on it.
            assert (pixels[solid][:, :3].mean() > 128) == (theme == "dark"), theme
            left, upper = solid[:, :8].sum(), solid[:8].sum()
            right, lower = solid.sum() - left, solid.sum() - upper
            if is_open:
                assert upper > lower and abs(left - right) < 8
            else:
                assert left > right and abs(upper - lower) < 8
