"""Run the whole main job: fine-tune, and compare the same click before and after.

Lays the grid, fine-tunes one epoch, extracts features before and after, draws
similarity maps and writes report.html, on a generated sample or on your slides.
"""

from __future__ import annotations

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
    return Outcome(result, table(rows))
