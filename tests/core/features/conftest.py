"""Slides whose patches fail, or take long, as a test wishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from napari_mcm.core.errors import TileError
from napari_mcm.core.slides import Slide

Meddle = Callable[[Callable[[tuple[int, int]], None]], None]


@pytest.fixture
def on_read(monkeypatch: pytest.MonkeyPatch) -> Meddle:
    """Give a function that has something called with the corner of each patch read.

    A `TileError` that it raises takes the patch's place.
    """
    whole = Slide.read_many

    def meddle(what: Callable[[tuple[int, int]], None]) -> None:
        def read_many(self: Slide, corners: Any, *args: Any) -> Any:
            parts = whole(self, corners, *args)
            for corner, part in zip(corners, parts, strict=True):
                try:
                    what(tuple(corner))
                except TileError as error:
                    yield error
                else:
                    yield part

        monkeypatch.setattr(Slide, "read_many", read_many)

    return meddle
