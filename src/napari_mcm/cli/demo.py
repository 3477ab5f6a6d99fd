"""Run the whole main job: fine-tune, and compare the same click before and after.

Lays the grid, fine-tunes briefly, extracts features before and after, draws similarity
maps and writes report.html, on a generated sample or on your slides. The sample is two
serial sections of one block, on which the click test is run as well.
"""

from __future__ import annotations

from typing import Any

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.runtime.jobs import format_seconds
from napari_mcm.core.slides.find import find_slides
from napari_mcm.core.studies.demo import DemoConfig, demo

OPTIONS, POSITIONAL = DemoConfig, ""


def run(options: DemoConfig) -> Outcome:
    """Run the demo."""
    config = options.model_copy(update={"slide": find_slides(options.slide)})
    done = drive(demo(config), "resume with the same command")
    result = {
        "run_dir": done.run_dir,
        "report": done.report,
        "figures": done.figures,
        "metrics": done.metrics,
        "seconds": done.seconds,
    }
    rows = [
        ("time", format_seconds(done.seconds)),
        ("folder", str(done.run_dir)),
        ("report", str(done.report)),
    ]
    clicks = done.metrics.get("click_test")
    if clicks is not None:
        rows += _clicks(clicks)
    return Outcome(result, table(rows))


def _clicks(clicks: dict[str, Any]) -> list[tuple[str, str]]:
    """Describe how often a click finds its own place in the next section."""
    rows = []
    for radius, name in (("0", "patch alone"), ("1", "3 × 3 patches")):
        before, after = (
            clicks["encoders"][encoder][radius]["recall_1"]
            for encoder in ("before", "after")
        )
        chance = clicks["chance"]["recall_1"]
        found = f"before {before:.2f}, after {after:.2f} (chance {chance:.2f})"
        gain, low, high = clicks["gain"][radius]
        if low is not None:
            found += f"; gain {gain:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}"
        rows.append((f"click finds its place, {name}", found))
    return rows
