"""Opens one slide after another, as told, in a process of its own.

A crash, a hang or a swollen memory is then seen by the test, and not the end of it.
Reads one path a line, answers one line of JSON.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_mcm.core.errors import McmError, SlideError, TileError
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, find_tissue

MEMORY = 6 * 2**30


def use(path: str) -> str:
    """Do what a run does with a slide; say how it went."""
    with open_slide(path, mpp=0.5) as slide:
        damaged = 0
        for index, level in enumerate(slide.levels):
            width, height = level.size
            for x, y in ((0, 0), (width // 2, height // 2), (width - 60, height - 60)):
                try:
                    pixels = slide.read_level(index, x, y, 100, 100)
                    assert pixels.shape == (100, 100, 3), pixels.shape
                except TileError:
                    damaged += 1
        for mpp in (0.5, 0.9):
            corners = [(x, slide.size[1] // 2) for x in range(0, 700, 224)]
            for part in slide.read_many(corners, (224, 224), mpp):
                damaged += isinstance(part, TileError)
        coarsest = [level.size for level in slide.levels if level.stored][-1]
        # What has no coarse level is decoded whole for a mask: slow, and no hang.
        if coarsest[0] * coarsest[1] < 4_000_000:
            find_tissue(slide, TissueConfig(tissue_mpp=32))
        assert np.asarray(slide.as_dask(0)[:300, :300]).ndim == 3
        for name in slide.associated:
            try:
                slide.associated_image(name)
            except SlideError:
                damaged += 1
        assert len(slide.fingerprint) == 16
        _ = slide.icc_profile, slide.properties, slide.warnings
    return "read, with damaged tiles" if damaged else "read"


def answer(path: str) -> dict[str, object]:
    # Of this process's own time: others may share the machine.
    began, before = time.process_time(), memory_now()
    try:
        outcome, detail = use(path), ""
    except McmError as error:
        outcome, detail = "refused", str(error)
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        outcome, detail = "not one of our errors", f"{type(error).__name__}: {error}"
    return {
        "outcome": outcome,
        "detail": detail,
        "seconds": time.process_time() - began,
        "megabytes": memory_peak() - before,
    }


def memory_now() -> float:
    """Give this process's memory in MB, and begin to measure its peak anew.

    The peak that the system keeps of a process begins with that of the process which
    started it, even if another program is run.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def memory_peak() -> float:
    """Give the most memory in MB since it was asked for last."""
    return _status("VmHWM")


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    for line in sys.stdin:
        print(json.dumps(answer(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main()
