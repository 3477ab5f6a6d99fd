"""The canvas's letters are prepared one after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_mcm.viewer.layers import glyphs
from tests.viewer.conftest import wait_until, write_slide


def test_letters_are_prepared_one_at_each_pause(
    make_napari_viewer: Callable[..., Any],
) -> None:
    viewer = make_napari_viewer(show=True)
    fonts = viewer.window._qt_viewer.canvas._font_info
    font = fonts.font_manager.get_font(fonts.face)
    font._glyphs.clear()
    running = glyphs.GlyphPreparation(fonts, "ab×")
    counts = [len(font._glyphs)]
    for _ in range(3):
        running._next()
        counts.append(len(font._glyphs))
    assert counts == [0, 1, 2, 3] and {"a", "b", "×"} <= set(font._glyphs)
    wait_until(lambda: running not in glyphs._running)


def test_a_window_that_is_hidden_needs_none(
    make_napari_viewer: Callable[..., Any],
) -> None:
    glyphs.prepare_glyphs(make_napari_viewer())
    glyphs.prepare_glyphs(object())
    assert not glyphs._running


def test_a_caption_appears_when_its_letters_are_prepared(
    make_napari_viewer: Callable[..., Any], tmp_path: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    fonts = viewer.window._qt_viewer.canvas._font_info
    known = fonts.font_manager.get_font(fonts.face)._glyphs
    viewer.open(write_slide(tmp_path / "aba.tif", 0.5), plugin="napari-mcm")
    text = viewer.canvas.overlays.text
    wait_until(lambda: text.visible and text.text == "aba")
    known.pop("c", None)
    viewer.layers["aba"].name = "c"
    # The earlier name is gone, and the new letter is not drawn at once.
    assert not text.visible and "c" not in known
    wait_until(lambda: text.visible and text.text == "c")
    assert "c" in known
