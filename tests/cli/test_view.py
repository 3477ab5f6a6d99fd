"""What `view` asks of napari, and what it says where there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tests.cli.conftest import Call


@pytest.fixture
def napari(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Give a napari that opens no window."""
    double = MagicMock()
    monkeypatch.setitem(sys.modules, "napari", double)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    return double


def test_slides_open_with_the_plugin_and_its_widgets(
    call: Call, napari: MagicMock, slide: Path
) -> None:
    assert call("view", slide).status == 0
    viewer = napari.Viewer.return_value
    viewer.open.assert_called_once_with([str(slide)], plugin="napari-mcm")
    docked = [call.args for call in viewer.window.add_plugin_dock_widget.mock_calls]
    assert docked == [("napari-mcm", "Slide"), ("napari-mcm", "Similarity")]
    napari.run.assert_called_once_with()


def test_no_slide_is_fine(call: Call, napari: MagicMock) -> None:
    assert call("view").status == 0
    napari.Viewer.return_value.open.assert_not_called()


def test_a_missing_file_is_told_before_a_window_opens(
    call: Call, napari: MagicMock, tmp_path: Path
) -> None:
    assert call("view", tmp_path / "missing.svs").status == 1
    napari.Viewer.assert_not_called()


def test_without_qt_it_says_how_to_get_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = call("view")
    assert answer.status == 1
    assert 'pip install "napari-mcm[all]"' in answer.error


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 is Linux's")
def test_without_a_display_it_says_so(
    call: Call, napari: MagicMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    answer = call("view")
    assert answer.status == 1
    assert "no display" in answer.error


def test_the_command_line_never_imports_the_viewer() -> None:
    code = (
        "import sys, napari_mcm.cli.view; "
        "assert not [m for m in sys.modules if m.startswith('napari_mcm.viewer')]; "
        "assert 'napari' not in sys.modules and 'qtpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
