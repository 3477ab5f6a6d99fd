"""Does context help: the registered studies of `benchmarks/studies`, finished or not.

The studies take hours and are run on their own. This reads their folders as they are,
`click-crc`, `click-her2st`, `glas`, `her2st`, `figure-1b`, `figure-1b-field` and `sweep`,
and says of each that is missing that it is not run yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.results import context_cost, context_picture, context_sweep
from benchmarks.results.context_classifiers import (
    classifier_difference,
    classifier_table,
)
from benchmarks.results.context_folders import (
    FEW_SHOT,
    RECALL_1,
    RECALL_1_NEAR,
    RECALL_10,
    SIMILARITY,
    Measure,
    Study,
    Value,
    read_study_folder,
)
from benchmarks.results.context_rule import expected_table, rule_text
from benchmarks.results.tables import markdown

PAGES = ("context",)
NOT_RUN = "not run yet"
COMMANDS: Mapping[str, str] = {
    **{
        name: f"python -m benchmarks.studies.prepare {name}"
        for name in ("click-crc", "click-her2st", "glas", "her2st")
    },
    "figure-1b": "python -m benchmarks.studies.figure_1b",
    "figure-1b-field": "python -m benchmarks.studies.figure_1b --field-effect",
}
CLICK_STUDIES = ("click-crc", "click-her2st")
LABEL_STUDIES = ("glas", "her2st")
ARMS: Mapping[str, str] = {
    "A": "A untouched",
    "B": "B teacher",
    "D": "D plain distillation",
    "F-l2": "F MCM-KD",
    "X": "X foreign context",
    "N": "N neighbours' mean",
}
PAIRS = (
    ("F-l2", "A"),
    ("N", "A"),
    ("D", "A"),
    ("F-l2", "D"),
    ("N", "D"),
    ("F-l2", "X"),
    ("X", "A"),
)
REGISTERED: Mapping[str, frozenset[tuple[str, str]]] = {
    "click": frozenset(PAIRS) - {("D", "A"), ("X", "A")},
    "labels": frozenset(PAIRS) - {("F-l2", "X")},
}
"""Pairs that `benchmarks/studies/README.md` registered for each kind of study."""
CLICKS = (RECALL_1, RECALL_1_NEAR, RECALL_10)
LABELS = (FEW_SHOT, SIMILARITY)
PAGE_ONE = (
    *(("click-crc", "click test", measure) for measure in CLICKS),
    *(("glas", "GlaS", measure) for measure in LABELS),
    *(("her2st", "HER2ST", measure) for measure in LABELS),
)
PANELS = (
    *(("click-crc", "click, colorectal", measure) for measure in CLICKS[:2]),
    ("click-her2st", "click, HER2ST", RECALL_1),
    *PAGE_ONE[len(CLICKS) :],
)
RADII = (0, 1)
OTHERS: Mapping[str, Sequence[Measure]] = {
    "click": (
        Measure("recall@10 within .75", "click_recall_10_near"),
        Measure("median rank", "click_median_rank"),
        Measure("chance, recall@1", "click_chance_1"),
    ),
    "labels": (
        Measure("similarity, own slide", "similarity_own_slide_auroc"),
        Measure("linear probe AUROC", "probe_auroc"),
        Measure("nearest neighbours AUROC", "knn_auroc"),
        Measure("mean similarity", "anisotropy"),
        Measure("effective rank", "effective_rank"),
    ),
}

Studies = Mapping[str, Study]


def there(work: Path) -> bool:
    """Whether any study has a finished trial."""
    return bool(read_studies(work)) or context_sweep.there(work)


def read_studies(work: Path) -> dict[str, Study]:
    """Read the folders that are there, by name."""
    found = {name: read_study_folder(work / name) for name in COMMANDS}
    return {name: study for name, study in found.items() if study is not None}


def values(data: Path, work: Path, pictures: Path) -> dict[str, str]:
    """Give what the page has room for, by name; `data` is not needed."""
    studies = read_studies(work)
    found = {
        "in-short": in_short(studies),
        "arms": arms_table(studies, PAGE_ONE),
        "her2st-clicks": arms_table(
            studies, [("click-her2st", "HER2ST", measure) for measure in CLICKS]
        ),
        "picture": context_picture.draw(pictures, ARMS, studies, PANELS),
        "state": state_table(studies),
        "options": context_cost.options_table(studies),
        "rule": rule_text(studies.get("click-crc")),
        "expected": expected_table(studies),
        "cost": context_cost.cost_table(studies) or NOT_RUN.capitalize() + ".",
        "sweep": context_sweep.sweep_table(work, studies.get("click-crc")),
        "sweep-chosen": context_sweep.chosen_text(work, studies.get("click-crc")),
    }
    for name in (*CLICK_STUDIES, *LABEL_STUDIES):
        kind, measures = (
            ("click", CLICKS) if name in CLICK_STUDIES else ("labels", LABELS)
        )
        for part, table in {
            "differences": differences_table(studies.get(name), kind, measures),
            "radii": radii_table(studies.get(name), measures),
            "others": others_table(studies.get(name), OTHERS[kind]),
        }.items():
            found[f"{name}-{part}"] = table or missing(name)
    for name in CLICK_STUDIES:
        found[f"{name}-places"] = places_table(studies.get(name)) or missing(name)
        found[f"{name}-pairs"] = pairs_table(studies.get(name)) or missing(name)
    for name, endings in (("glas", ("both-labels",)), ("her2st", ("border", "inner"))):
        table = parts_table(studies.get(name), endings)
        found[f"{name}-parts"] = table or missing(name)
    for name in ("figure-1b", "figure-1b-field"):
        found[name] = classifier_table(studies.get(name)) or missing(name)
    return found


def missing(name: str) -> str:
    """Say that a study is not run yet, and how to run it."""
    return f"*{NOT_RUN.capitalize()}*: `{COMMANDS[name]}`."


def value_text(value: Value | None) -> str:
    """Write a figure with its interval, and the trials in it where some are missing."""
    if value is None:
        return NOT_RUN
    low, high = (min(max(end, 0.0), 1.0) for end in value.interval)
    ends = f" [{low:.3f}, {high:.3f}]" if np.isfinite(low + high) else ""
    return f"{value.mean:.3f}{ends}{_part(value)}"


def difference_text(value: Value | None) -> str:
    """Write a difference with its intervals, over places or folds and over seeds."""
    if value is None:
        return NOT_RUN
    text = f"{value.mean:+.3f}"
    if np.isfinite(value.interval[0]):
        text += " [{:+.3f}, {:+.3f}]".format(*value.interval)
    if np.isfinite(value.seeds[0]):
        text += "; seeds [{:+.3f}, {:+.3f}]".format(*value.seeds)
    if value.above is not None:
        text += f", {value.above}/{value.done}"
    return text + _part(value)


def _part(value: Value) -> str:
    if value.complete:
        return ""
    return f" ({value.done} of {value.planned} trials)"


def answer(value: Value | None) -> str:
    """Say in words what all intervals of a difference show."""
    if value is None:
        return NOT_RUN
    if not np.isfinite(value.low):
        words = "no interval yet"
    elif value.low > 0:
        words = "yes"
    elif value.high < 0:
        words = "no, worse"
    else:
        words = "no difference found"
    return words if value.complete else f"{words}, so far"


def in_short(studies: Studies) -> str:
    """Write the questions of the studies, their figures and answers."""
    click, glas, her2st = (studies.get(n) for n in ("click-crc", "glas", "her2st"))
    border = _within(FEW_SHOT, "border")
    near = "place itself first (recall@1 within .75)"
    first = "place first (recall@1 within 2)"
    asked: list[tuple[str, str, str, Study | None, Measure, tuple[str, int, str, int]]]
    asked = [
        ("Does context at the click find the place in the next section?",
         "3 × 3 − patch, A", first, click, RECALL_1, ("A", 1, "A", 0)),
        ("", "3 × 3 − patch, A", near, click, RECALL_1_NEAR, ("A", 1, "A", 0)),
        ("Does it help to tell tissues apart?", "3 × 3 − patch, A, GlaS",
         "few-shot AUROC", glas, FEW_SHOT, ("A", 1, "A", 0)),
        ("", "3 × 3 − patch, A, HER2ST", "few-shot AUROC", her2st, FEW_SHOT,
         ("A", 1, "A", 0)),
        ("And at the borders of regions?", "3 × 3 − patch, A, HER2ST",
         "few-shot AUROC at borders", her2st, border, ("A", 1, "A", 0)),
        ("Does plain distillation help the patch alone?", "D − A", first, click,
         RECALL_1, ("D", 0, "A", 0)),
        ("Does fine-tuning with context?", "N − A", first, click, RECALL_1,
         ("N", 0, "A", 0)),
        ("", "F − A", first, click, RECALL_1, ("F-l2", 0, "A", 0)),
        ("Is that more than plain distillation gives?", "N − D", first, click,
         RECALL_1, ("N", 0, "D", 0)),
        ("", "F − D", first, click, RECALL_1, ("F-l2", 0, "D", 0)),
        ("Does F need the patches of its own window?", "F − X", first, click,
         RECALL_1, ("F-l2", 0, "X", 0)),
        ("Does the control X leave the student as good?", "X − A", first, click,
         RECALL_1, ("X", 0, "A", 0)),
        ("Does fine-tuning add to context at the click?", "N − A, both 3 × 3", first,
         click, RECALL_1, ("N", 1, "A", 1)),
        ("Does it help patients that it was not trained on?", "N − A, GlaS",
         "few-shot AUROC", glas, FEW_SHOT, ("N", 0, "A", 0)),
        ("", "N − A, GlaS, both 3 × 3", "few-shot AUROC", glas, FEW_SHOT,
         ("N", 1, "A", 1)),
    ]  # fmt: skip
    rows = []
    for question, compared, figure, study, measure, how in asked:
        found = study.difference(measure, *how) if study else None
        rows.append([question, compared, figure, difference_text(found), answer(found)])
    diluted = "3 × 3 − patch, A, generated cohort"
    found = classifier_difference(studies.get("figure-1b"), "A", 1, "A", 0)
    rows.append(
        ["Does it help where the tumour is small?", diluted, "AUROC by CLAM",
         difference_text(found), answer(found)]
    )  # fmt: skip
    header = ["question", "compared", "figure", "difference", "answer"]
    return markdown(header, rows)


def arms_table(studies: Studies, columns: Iterable[tuple[str, str, Measure]]) -> str:
    """Write arms × radius, with the figures of several studies beside each other."""
    columns = list(columns)
    rows = [
        [
            name,
            context_name(radius),
            *(_cell(studies.get(study), measure, arm, radius)
              for study, _, measure in columns),
        ]
        for arm, name in ARMS.items()
        for radius in RADII
    ]  # fmt: skip
    titles = [f"{where}: {measure.title}" for _, where, measure in columns]
    return markdown(["arm", "context", *titles], rows)


def _cell(study: Study | None, measure: Measure, arm: str, radius: int) -> str:
    return value_text(study.value(measure, arm, radius) if study else None)


def context_name(radius: int) -> str:
    """Name a radius as the slider of the viewer does."""
    side = 2 * radius + 1
    return f"{side} × {side}" if radius else "patch"


def state_table(studies: Studies) -> str:
    """Write how much of each study is done, and the command that runs it."""
    rows = []
    for name, command in COMMANDS.items():
        study = studies.get(name)
        told = NOT_RUN
        if study:
            done, planned = sum(study.finished.values()), sum(study.planned.values())
            told = f"{done} of {planned}"
        rows.append([f"`{name}`", told, f"`{command}`"])
    return markdown(["study", "finished trials", "command"], rows)


def differences_table(
    study: Study | None, kind: str, measures: Sequence[Measure]
) -> str:
    """Write the differences between arms at each radius; registered ones are marked."""
    if study is None:
        return ""
    rows = [
        [
            f"{arm} − {control}",
            context_name(radius),
            "yes" if (arm, control) in REGISTERED[kind] else "no",
            *(difference_text(study.difference(m, arm, radius, control))
              for m in measures),
        ]
        for arm, control in PAIRS
        for radius in study.config.radii
    ]  # fmt: skip
    return markdown(
        ["arms", "context", "registered", *(m.title for m in measures)], rows
    )


def radii_table(study: Study | None, measures: Sequence[Measure]) -> str:
    """Write what 3 × 3 patches add to the patch alone, for each arm."""
    if study is None:
        return ""
    rows = [
        [arm, *(difference_text(study.difference(m, arm, 1, arm, 0)) for m in measures)]
        for arm in study.config.arms
    ]
    return markdown(["arm", *(m.title for m in measures)], rows)


def places_table(study: Study | None) -> str:
    """Write the gain over A apart for places trained on, and for those held out."""
    if study is None:
        return ""
    trained = replace(RECALL_1, places="trained on")
    held_out = replace(RECALL_1, places="held out")
    rows = [
        [
            f"{arm} − A",
            context_name(radius),
            *(difference_text(study.difference(m, arm, radius, "A"))
              for m in (trained, held_out)),
        ]
        for arm in ("D", "F-l2", "N")
        for radius in study.config.radii
    ]  # fmt: skip
    return markdown(["arms", "context", "places trained on", "places held out"], rows)


def pairs_table(study: Study | None) -> str:
    """Write recall and gains apart for each pair of sections."""
    if study is None:
        return ""
    pairs = [pair.name for pair in study.config.serial]
    measures = [replace(RECALL_1, pair=name) for name in pairs]
    rows = []
    for arm in ("A", "D", "F-l2", "N"):
        for radius in study.config.radii:
            cells = []
            for measure in measures:
                cells.append(_cell(study, measure, arm, radius))
                gain = study.difference(measure, arm, radius, "A")
                cells.append("" if arm == "A" else difference_text(gain))
            rows.append([arm, context_name(radius), *cells])
    titles = [title for name in pairs for title in (name, "less A")]
    return markdown(["arm", "context", *titles], rows)


def parts_table(study: Study | None, endings: Sequence[str]) -> str:
    """Write figures of some patches only, such as those at a border, and radius 1 − 0."""
    if study is None:
        return ""
    measures = [_within(m, ending) for ending in endings for m in LABELS]
    rows = []
    for arm in study.config.arms:
        for radius in study.config.radii:
            cells = [_cell(study, m, arm, radius) for m in measures]
            rows.append([arm, context_name(radius), *cells])
        cells = [difference_text(study.difference(m, arm, 1, arm, 0)) for m in measures]
        rows.append([arm, "3 × 3 − patch", *cells])
    return markdown(["arm", "context", *(m.title for m in measures)], rows)


def _within(measure: Measure, ending: str) -> Measure:
    title = f"{measure.title} ({ending})"
    return replace(measure, title=title, figure=f"{measure.figure} ({ending})")


def others_table(study: Study | None, measures: Sequence[Measure]) -> str:
    """Write the means of exploratory figures."""
    if study is None:
        return ""
    rows = []
    for arm in study.config.arms:
        for radius in study.config.radii:
            found = [study.mean(m.figure, arm, radius) for m in measures]
            cells = ["" if value is None else f"{value:.4g}" for value in found]
            rows.append([arm, context_name(radius), *cells])
    return markdown(["arm", "context", *(m.title for m in measures)], rows)
