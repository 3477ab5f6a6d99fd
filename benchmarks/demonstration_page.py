"""Draw the picture of `docs/demonstration.md`, and write its tables.

Figures come from the two JSON files that the benchmarks write:

    python -m benchmarks.controlled_case --out benchmarks/results/controlled_case.json
    python -m benchmarks.field_effect --out benchmarks/results/field_effect.json
    python -m benchmarks.demonstration_page
"""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from benchmarks import field_effect
from benchmarks.controlled_case import TEXTURE, draw_patch
from matplotlib.axes import Axes

from napari_mcm.core.slides import open_slide

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = (
    DOCS / "demonstration.md",
    DOCS / "pictures" / "results-demonstration.png",
)

MEANINGS = {
    "A": "the untouched student",
    "D": "plain distillation",
    "X": "visible patches of another window",
    "F": "masked context",
    "N": "targets of the neighbourhood",
    "F without texture": "masked context, without the texture",
    "A without": "the untouched student, without the field effect",
    "F without": "masked context, without the field effect",
}

Values = Mapping[str, Sequence[float]]

TISSUE = """## On drawn tissue

The second case trains EfficientNet-Lite0 on targets of EfficientNet-Lite2, on [generated
slides](cli/sample.md) with `--field-effect`: the eosin of the tissue within {extent:.0f} µm
of a tumour ripples by {strength:.0%}. The question is whether a patch of plain stroma lies
near a tumour. None of the tested patches shows a tumour cell, and both tested slides are of
a patient that no encoder has seen. Without the effect, the figures say what stroma near a
tumour looks like on its own.

{table}

{means}

{verdict}"""

NOT_LEARNED = """**Nothing of it was learned**: no fine-tuned arm is above the untouched
student with the effect. The ripple moves the untouched student's own figure a little, and the
runs are short: slides of two patients, a few hundred windows. What the controlled case shows
is therefore not shown on drawn tissue."""
LEARNED = "Arms above the untouched student with the effect: {arms}."


def read() -> dict[str, Values]:
    """Read the AUROC of each arm and seed, of those cases that were measured."""
    found: dict[str, Values] = {}
    for case, name in (("controlled", "controlled_case"), ("tissue", "field_effect")):
        file = RESULTS / f"{name}.json"
        if file.is_file():
            found[case] = json.loads(file.read_text(encoding="utf-8"))["auroc"]
    if "tissue" in found:
        both = found["tissue"]
        without = {f"{arm} without": v for arm, v in both["without"].items()}
        found["tissue"] = {**both["with"], **without}
    return found


def make_table(values: Values) -> str:
    """Make a table of arms and seeds."""
    seeds = max(map(len, values.values()))
    lines = ["| arm | | " + " | ".join(f"seed {n}" for n in range(seeds)) + " |"]
    lines.append("|---" * (seeds + 2) + "|")
    for arm in (arm for arm in MEANINGS if arm in values):
        cells = [f"{value:.3f}" for value in values[arm]]
        cells += ["not run"] * (seeds - len(cells))
        lines.append(f"| {arm.split()[0]} | {MEANINGS[arm]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_tissue(values: Values) -> dict[str, str]:
    """Say what came out on drawn tissue."""
    means = {arm: float(np.mean(v)) for arm, v in values.items()}
    named = [f"{MEANINGS[a]} {m:.3f}" for a, m in means.items() if a in MEANINGS]
    trained = [arm for arm in means if arm in ("D", "F", "X", "N")]
    above = [arm for arm in trained if means[arm] > means["A"]]
    verdict = LEARNED.format(arms=", ".join(above)) if above else NOT_LEARNED
    text = textwrap.fill(f"Means over the seeds: {'; '.join(named)}.", 95)
    return {"means": text, "verdict": verdict}


def write_tables(cases: Mapping[str, Values]) -> None:
    """Write the tables, and the section on tissue where it was measured."""
    page = PAGE.read_text(encoding="utf-8")
    for name, values in cases.items():
        text = make_table(values)
        if name == "tissue":
            text = TISSUE.format(
                extent=field_effect.EXTENT,
                strength=field_effect.STRENGTH,
                table=text,
                **describe_tissue(values),
            )
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    PAGE.write_text(page, encoding="utf-8")


def draw_dots(axes: Axes, values: Values, title: str) -> None:
    """Draw one dot per arm and seed, over a line at chance."""
    arms = [arm for arm in MEANINGS if arm in values]
    for row, arm in enumerate(arms):
        axes.plot(
            values[arm], [row] * len(values[arm]), "o", color="#2a6f97", alpha=0.8
        )
    labels = [f"{arm.split()[0]}: {MEANINGS[arm]}" for arm in arms]
    axes.set_yticks(range(len(arms)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0.5, color="0.6", lw=1, ls="--")
    axes.set_xlim(0.35, 1.02)
    axes.set_xlabel("few-shot AUROC on patches without a sign", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)


def draw_patches(axes: Axes) -> None:
    """Draw patches of both states of the controlled case."""
    rng = np.random.default_rng(4)
    rows = [
        np.hstack([draw_patch(state, index == 1, TEXTURE, rng) for index in range(4)])
        for state in (0, 1)
    ]
    axes.imshow(np.vstack(rows))
    axes.set_title(
        "state 0 above, state 1 below; the second has a sign", fontsize=9, loc="left"
    )
    axes.axis("off")


def draw_tissue(axes: Axes) -> None:
    """Draw one place of a slide without and with the field effect."""
    crops = []
    with tempfile.TemporaryDirectory() as folder:
        for effect in (False, True):
            slides = field_effect.draw(Path(folder) / str(effect), effect)
            stroma = field_effect.find_stroma(slides)
            x, y = stroma.xy[int(np.flatnonzero(stroma.near == 1)[20])]
            with open_slide(slides[field_effect.TESTED[0]]) as slide:
                crops.append(slide.read((x, y), (128, 128), 1.0))
    axes.imshow(np.hstack(crops))
    axes.set_title(
        "stroma near a tumour, without and with the effect", fontsize=9, loc="left"
    )
    axes.axis("off")


def main() -> None:
    """Draw the picture and write the tables."""
    cases = read()
    figure, axes = plt.subplots(
        len(cases),
        2,
        figsize=(10, 3 * len(cases)),
        width_ratios=(1, 1.3),
        squeeze=False,
    )
    draw_patches(axes[0, 0])
    draw_dots(axes[0, 1], cases["controlled"], "Controlled case")
    if "tissue" in cases:
        draw_tissue(axes[1, 0])
        draw_dots(axes[1, 1], cases["tissue"], "Drawn tissue, Lite0 learns from Lite2")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    write_tables(cases)


if __name__ == "__main__":
    main()
