"""Compare encoders on labelled regions of slides, with paired 95 % intervals.

Give slides and encoders, or folders of feature files. Without labels, --serial compares
encoders on two serial sections: a click should find its own place in the second.
Features and measures are kept in the output folder and reused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, aligned, table
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.runtime.jobs import format_seconds
from napari_mcm.core.slides.find import find_slides

if TYPE_CHECKING:
    from napari_mcm.core.evaluation.result import Evaluation, Interval

OPTIONS, POSITIONAL = EvaluateConfig, "slides"


def run(options: EvaluateConfig) -> Outcome:
    """Compare the encoders."""
    if options.serial:
        return _run_serial(options)
    from napari_mcm.core.evaluation.evaluate import evaluate
    from napari_mcm.core.evaluation.result import describe

    config = options.model_copy(update={"slides": find_slides(options.slides)})
    done = drive(evaluate(config), "run the same command again: what is done is kept")
    assert config.out is not None
    files = [config.out / f"evaluation.{kind}" for kind in ("json", "csv", "png")]
    return Outcome(
        describe(done) | {"files": files},
        [*_table(done), "", *table([("file", str(file)) for file in files])],
    )


def _run_serial(options: EvaluateConfig) -> Outcome:
    """Compare the encoders by the click test on two serial sections."""
    from napari_mcm.core.evaluation.serial_evaluation import evaluate_serial
    from napari_mcm.core.evaluation.serial_result import (
        describe_serial,
        facts,
        table_cells,
    )

    config = options.model_copy(update={"slides": find_slides(options.slides)})
    done = drive(
        evaluate_serial(config), "run the same command again: what is done is kept"
    )
    assert config.out is not None
    files = [config.out / f"serial.{kind}" for kind in ("json", "csv", "md")]
    shown = [*facts(done), ("time", format_seconds(done.seconds))]
    shown += [("file", str(file)) for file in files]
    lines = [*aligned(table_cells(done)), "", *table(shown), "", *done.sentences()]
    return Outcome(describe_serial(done) | {"files": files}, lines)


def _table(done: Evaluation) -> list[str]:
    """Return a table with one row per measure, and columns for encoders and differences.

    Differences are those to the first encoder.
    """
    from napari_mcm.core.evaluation.metrics import TITLES

    first, *others = done.encoders
    cells = [["", *done.encoders, *(f"{e} - {first}" for e in others)]]
    for name in done.measures():
        rows = [done.row(name, encoder) for encoder in done.encoders]
        line = [TITLES[name], *(_with_interval(r.value, r.interval) for r in rows)]
        for row in rows[1:]:
            assert row.difference is not None and row.difference_interval is not None
            line.append(_with_interval(row.difference, row.difference_interval, "+"))
        cells.append(line)
    lines = aligned(cells)
    counted = ", ".join(f"{count} {name}" for name, count in done.classes.items())
    return [
        *lines,
        "",
        *table(
            [
                ("patches", counted),
                ("covers", _covers(done)),
                ("groups", ", ".join(done.groups)),
                *_costs(done),
                (
                    "majority",
                    f"accuracy {done.majority:.3f}, balanced accuracy "
                    f"{1 / len(done.classes):.3f}, AUROC 0.5",
                ),
                ("intervals", f"95 %, {done.resampling}"),
                ("time", format_seconds(done.seconds)),
            ]
        ),
    ]


def _costs(done: Evaluation) -> list[tuple[str, str]]:
    """Return one line per encoder with its parameters and multiply-adds."""
    from napari_mcm.core.encoders.cost import Cost

    return [
        (
            "cost" if number == 0 else "",
            f"{name}: {'unknown' if cost is None else Cost(**cost).describe()}",
        )
        for number, (name, cost) in enumerate(done.protocol["costs"].items())
    ]


def _covers(done: Evaluation) -> str:
    """Describe what the features of a patch cover, and how many lie at borders."""
    context = done.neighbourhood
    text = f"{context.describe()} patches" if context.radius else "single patches"
    border = [row for row in done.rows if row.measure == "border_probe_auroc"]
    if not border:
        return text
    return f"{text}; {border[0].details['patches']} lie at the border of a label"


def _with_interval(value: float, interval: Interval, sign: str = "") -> str:
    low, high = (f"{_short(v, sign)}" for v in interval)
    return f"{_short(value, sign)} [{low}, {high}]"


def _short(value: float, sign: str) -> str:
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign}.1f}"
