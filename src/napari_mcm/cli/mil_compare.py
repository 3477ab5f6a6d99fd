"""Compare encoders by training the same classifier on their features.

All train on the same folds of the same slides, so that differences are paired. The
first folder is the reference. The same command resumes an interrupted comparison. Given
finished runs of mil train instead, it compares them as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.mil.config import CompareConfig

if TYPE_CHECKING:
    from napari_mcm.core.mil.compare import CompareResult

OPTIONS, POSITIONAL = CompareConfig, "features"


def run(options: CompareConfig) -> Outcome:
    """Train on the features of each encoder and compare the figures."""
    from napari_mcm.core.mil.compare import compare

    done = drive(compare(options))
    contexts = {name: known.model_dump() for name, known in done.neighbourhoods.items()}
    result = {
        "figures": done.figures,
        "differences": done.differences,
        "neighbourhoods": contexts,
    }
    return Outcome(result, _lines(done))


def _lines(done: CompareResult) -> list[str]:
    from napari_mcm.core.mil.bags import covered
    from napari_mcm.core.mil.metrics import MAIN
    from napari_mcm.core.mil.results import columns, ends, number

    rows = [("", *(name.replace("_", " ") for name in MAIN))]
    for encoder, figures in done.figures.items():
        rows.append((encoder, *(number(figures["pooled"][name]) for name in MAIN)))
        rows.append(("  95 %", *(ends(figures["by_patient"][name]) for name in MAIN)))
    reference = next(iter(done.figures))
    for encoder, difference in done.differences.items():
        values = (f"{difference[name]:+.3f}" for name in MAIN)
        intervals = (ends(difference["by_patient"][name]) for name in MAIN)
        rows.append((f"{encoder} - {reference}", *values))
        rows.append(("  paired 95 %", *intervals))
    majority = next(iter(done.figures.values()))["baseline"]
    rows.append(("majority", *(number(majority[name]) for name in MAIN)))
    note = "intervals by patient; those by slide are in compare.json"
    covers = ", ".join(
        f"{name} {covered(known)}" for name, known in done.neighbourhoods.items()
    )
    about = table([("covers", covers), ("directory", str(done.out))])
    return [*columns(rows), "", note, *about]
