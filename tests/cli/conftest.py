"""A slide and the command, as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tifffile

from napari_mcm.cli import main
from tests.core.conftest import stained_image

MPP = 0.5


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        (line,) = [x for x in self.err.splitlines() if x.startswith("error: ")]
        return line


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Give a function that runs ``napari-mcm`` in this process."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return run


def _write(path: Path, mpp: float | None, side: int = 512) -> Path:
    metadata = {"axes": "YXS"}
    if mpp is not None:
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": mpp, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(
        path,
        stained_image(side, side),
        tile=(128, 128),
        photometric="rgb",
        compression="zlib",
        metadata=metadata,
        ome=True,
    )
    return path


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a slide of 512 px at 0.5 µm: a round piece of tissue."""
    return _write(tmp_path_factory.mktemp("slides") / "round.ome.tif", MPP)


@pytest.fixture(scope="session")
def slide_without_mpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the same without a resolution."""
    return _write(tmp_path_factory.mktemp("slides") / "bare.ome.tif", None)
