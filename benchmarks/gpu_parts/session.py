"""What the parts share: device, folder, time, and what was found so far."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts.page import page

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.runtime.files import write_json, write_text

SMALL = {"student": "random:test_efficientnet", "teacher": "random:test_resnet"}


@dataclass
class Session:
    """What the parts share: device, folder, time, and what was found so far."""

    device: str
    out: Path
    data: Path
    tiny: bool
    minutes: float
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the script has to be done."""
        return self.began + 60 * self.minutes - time.monotonic()

    @property
    def cores(self) -> int:
        """CPU cores that this process may use."""
        return len(os.sched_getaffinity(0))

    @property
    def work(self) -> Path:
        """Folder of everything that is only needed on the way."""
        return self.out / "work"

    def compute(self, precision: str = "float32") -> ComputeConfig:
        """Return the device, in a precision."""
        return ComputeConfig(device=self.device, precision=precision)

    def save(self) -> None:
        """Write what was found so far."""
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        write_json(self.out / "gpu.json", self.found)
        write_text(self.out / "gpu.md", "\n".join(page(self.found)) + "\n")

    def step(self, name: str, work: Callable[[Session], Any]) -> None:
        """Do a part; what goes wrong is kept, and the next one begins."""
        print(f"== {name} ({self.left:.0f} s left)", flush=True)
        began = time.monotonic()
        try:
            self.found[name] = work(self)
        # Of any kind: to find it is what the script is for.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.found.setdefault("failed", {})[name] = (
                f"{type(error).__name__}: {error}"
            )
        self.found.setdefault("part_seconds", {})[name] = round(
            time.monotonic() - began, 1
        )
        self.save()
