"""Write `docs/results/labelling.md` and its picture, from the figures of the benchmarks.

python -m benchmarks.labelling --work DIR --out benchmarks/results/labelling.json
python -m benchmarks.label_session --out DIR   # session.json, kept as label_session.json
python -m benchmarks.labelling_page
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.labelling import STRATEGIES, TARGET
from benchmarks.results.pages import PICTURES, write_page, write_summary
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_mcm.core.runtime.files import atomic_path

RESULTS = Path(__file__).parent / "results"
PICTURE = "results-labelling.png"
DATA = {"her2st": "HER2ST", "glas": "GlaS", "cohort": "generated cohort"}
MEASURES = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
RADII = {"r0-examples-8": "patch", "r1-examples-8": "3 × 3"}
COLOURS = {
    "random": "0.45",
    "margin": "#e69f00",
    "balanced": "#0072b2",
    "undrawn": "#56b4e9",
}

Found = Mapping[str, Any]


def values(found: Found, session: Found) -> dict[str, str]:
    """Make all tables of the page."""
    return {
        "verdict": verdict(found),
        "needed": needed_table(found, RADII),
        "scores": score_table(found, RADII),
        "nothing": needed_table(found, {"r1-nothing-8": "3 × 3"}),
        "complete": complete_table(found),
        "single": needed_table(found, {"r1-examples-1": "3 × 3"}),
        "picture": f"![Scores against the number of labels](../pictures/{PICTURE})",
        "data": data_table(found),
        "labels": ", ".join(f"{n} {name}" for name, n in session["labels"].items()),
        "skipped": str(session["skipped"]),
        "trust": session["trust"],
        "areas": area_table(session),
        "agreement": agreement_table(session),
        "same": ", ".join(f"`{name}`" for name in session["same"]),
        "regions": str(session["geojson"][".classes.regions.geojson"]),
        "tiles": str(session["geojson"][".classes.geojson"]),
    }


def verdict(found: Found) -> str:
    """Tell in how many cases each strategy is better or worse than random."""
    rows = []
    for strategy in STRATEGIES[1:]:
        cases = _cases(found, RADII)
        fewer, more = [], []
        for name, variant, measure in cases:
            low, high = found[name]["variants"][variant][measure][strategy]["interval"]
            case = f"{DATA[name]}, {RADII[variant]}, {MEASURES[measure]}"
            if high is not None and high < TARGET:
                fewer.append(case)
            elif low is None or low > TARGET:
                more.append(case)
        gains = [
            np.mean(
                [
                    found[n]["variants"][v][m][strategy]["gain"]
                    for n, v, m in cases
                    if m == one
                ]
            )
            for one in MEASURES
        ]
        rows.append(
            [
                strategy,
                f"{len(fewer)} of {len(cases)}" + _listed(fewer),
                f"{len(more)} of {len(cases)}" + _listed(more),
                *(f"{gain:+.3f}" for gain in gains),
            ]
        )
    header = ["strategy", "fewer labels than random", "more labels than random"]
    header += [f"mean gain in {name}" for name in MEASURES.values()]
    return table(header, rows)


def _mean_gain(
    found: Found, cases: Sequence[tuple[str, str, str]], strategy: str, measure: str
) -> float:
    """Average the gain over random at 100 labels over data sets and contexts."""
    gains = [
        found[name]["variants"][variant][measure][strategy]["gain"]
        for name, variant, of in cases
        if of == measure
    ]
    return float(np.mean(gains))


def _listed(cases: Sequence[str]) -> str:
    return f" ({'; '.join(cases)})" if cases else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def needed_table(found: Found, variants: Mapping[str, str]) -> str:
    """Tell how many labels each strategy needs for random's score at 100."""
    rows = []
    for name, variant, measure in _cases(found, variants):
        figures = found[name]["variants"][variant]
        most = figures["counts"][-1]
        cells = [_needed(figures[measure][one], most) for one in STRATEGIES]
        rows.append([DATA[name], variants[variant], MEASURES[measure], *cells])
    return table(["data", "context", "score", *STRATEGIES], rows)


def score_table(found: Found, variants: Mapping[str, str]) -> str:
    """Tell each strategy's score at 100 labels, and its gain over random."""
    rows = []
    for name, variant, measure in _cases(found, variants):
        figures = found[name]["variants"][variant][measure]
        cells = [f"{figures['random']['at_target']:.3f}"]
        for strategy in STRATEGIES[1:]:
            low, high = figures[strategy]["gain_interval"]
            gain = figures[strategy]["gain"]
            cells.append(f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append([DATA[name], variants[variant], MEASURES[measure], *cells])
    others = [f"{strategy} − random" for strategy in STRATEGIES[1:]]
    return table(["data", "context", "score", "random", *others], rows)


def complete_table(found: Found) -> str:
    """Tell after how many labels every class has one, from nothing."""
    rows = []
    for name in DATA:
        variant = found.get(name, {}).get("variants", {}).get("r1-nothing-8")
        if variant:
            cells = [
                "{:.0f} ({:.0f})".format(*variant["complete"][strategy])
                for strategy in STRATEGIES
            ]
            rows.append([DATA[name], *cells])
    return table(["data", *STRATEGIES], rows)


def data_table(found: Found) -> str:
    """Count the patches."""
    rows = []
    for name, one in found.items():
        data = one["data"]
        counts = ", ".join(f"{n:,} {c.lower()}" for c, n in data["classes"].items())
        rows.append([DATA[name], str(data["slides"]), str(data["splits"]), counts])
    return table(["data", "slides", "splits", "patches"], rows)


def area_table(session: Found) -> str:
    """Give areas by slide and class."""
    rows = [
        [
            row["slide"],
            row["class"],
            f"{float(row['area_mm2']):.2f}",
            f"{float(row['tissue_percent']):.1f}",
            row["patches"],
        ]
        for row in session["areas"]
    ]
    return table(["slide", "class", "mm²", "% of tissue", "patches"], rows)


def agreement_table(session: Found) -> str:
    """Compare classes with spots by section."""
    rows = []
    for section, one in session["agreement"].items():
        recalls = [
            "none sure" if value is None else f"{value:.2f}"
            for value in one["recall"].values()
        ]
        cells = [str(one["spots"]), f"{100 * one['unsure']:.0f} %"]
        rows.append([section, *cells, f"{one['agreement']:.3f}", *recalls])
    classes = next(iter(session["agreement"].values()))["recall"]
    header = ["section", "spots", "unsure", "agreement", *(f"of {c}" for c in classes)]
    return table(header, rows)


def _cases(found: Found, variants: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [
        (name, variant, measure)
        for measure in MEASURES
        for name in DATA
        for variant in variants
        if variant in found.get(name, {}).get("variants", {})
    ]


def _needed(figures: Found, most: int) -> str:
    """Give labels needed with their interval; `most` is the last number of labels."""
    texts = [
        f">{most}" if value is None else f"{value:.0f}"
        for value in (figures["needed"], *figures["interval"])
    ]
    return "{} [{}, {}]".format(*texts)


def draw(found: Found) -> None:
    """Draw balanced accuracy and AUROC against the number of labels."""
    names = [name for name in DATA if name in found]
    figure = Figure((10, 3.0 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 4, squeeze=False)
    for row, name in enumerate(names):
        for column, (measure, variant) in enumerate(
            (m, v) for m in MEASURES for v in RADII
        ):
            axis = axes[row, column]
            if variant in found[name]["variants"]:
                _draw_curves(axis, found[name]["variants"][variant], measure)
            title = f"{DATA[name]}, {RADII[variant]}: {MEASURES[measure]}"
            axis.set_title(title, fontsize=8)
    axes[0, 0].legend(fontsize=7)
    with atomic_path(PICTURES / PICTURE) as part:
        figure.savefig(part, dpi=120)


def _draw_curves(axis: Axes, variant: Found, measure: str) -> None:
    for strategy in STRATEGIES:
        mean = variant[measure][strategy]["mean"]
        width = 1.8 if strategy in ("random", "balanced") else 1.0
        style = "--" if strategy == "undrawn" else "-"
        axis.plot(
            variant["counts"],
            mean,
            style,
            color=COLOURS[strategy],
            lw=width,
            label=strategy,
        )
    axis.axvline(TARGET, color="0.8", lw=0.8)
    axis.set_xlabel("labels", fontsize=7)
    axis.tick_params(labelsize=7)
    axis.grid(lw=0.3)


def read(name: str) -> Found:
    """Read a file of figures."""
    content: Found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Write page, picture and summary."""
    found = read("labelling")
    draw(found)
    write_page("labelling", values(found, read("label_session")))
    write_summary()


if __name__ == "__main__":
    main()
