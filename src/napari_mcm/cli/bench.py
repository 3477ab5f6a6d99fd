"""Measure how fast slides are read or features extracted, and what limits it."""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.studies.bench import BenchConfig, BenchResult, bench

OPTIONS, POSITIONAL = BenchConfig, "what"


def run(options: BenchConfig) -> Outcome:
    """Measure the stages and name the bottleneck."""
    found = drive(bench(options))
    stages = {
        stage.name: {"seconds": stage.seconds, "threads": stage.threads}
        for stage in found.stages
    }
    result = {
        "slide": found.slide,
        "patches": found.patches,
        "table": stages,
        "rates": found.rates,
        "bottleneck": found.bottleneck,
    }
    return Outcome(result, table(_rows(found)))


def _rows(found: BenchResult) -> list[tuple[str, str]]:
    whole = sum(stage.seconds for stage in found.stages)
    rows = [("slide", f"{found.slide}, {found.patches:,} patches")]
    for stage in found.stages:
        ms = 1000 * stage.seconds / found.patches
        text = f"{ms:8.3f} ms per patch, {stage.seconds / whole:4.0%}"
        if stage.threads > 1:
            text += f", by {stage.threads} threads at once"
        rows.append((stage.name, text))
    rows += [(name, f"{rate:,.0f} patches/s") for name, rate in found.rates.items()]
    rows.append(("bottleneck", found.bottleneck))
    return rows
