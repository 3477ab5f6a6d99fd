"""The sweep behind the defaults, from the `sweep.csv` of `benchmarks.studies.sweep`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results.context_folders import Study
from benchmarks.results.tables import markdown

from napari_mcm.core.studies.study_config import arm_config

MISSING = (
    "*Not run yet*: `python -m benchmarks.studies.sweep`, whose `sweep.csv` is read."
)
FIGURES = {
    "click_recall_1": "@1 within 2",
    "click_recall_1_near": "@1 within .75",
    "click_recall_10": "@10 within 2",
}
_MODE = "context.context_mode"
_ARM_OF = {"none": "D", "masked": "F-l2", "foreign": "X", "neighbours": "N"}


@dataclass(frozen=True)
class Tried:
    """A combination of options, and its figures at each radius."""

    arm: str
    seed: str
    options: Mapping[str, Any]
    by_radius: Mapping[int, Mapping[str, str]]


def there(work: Path) -> bool:
    """Whether the sweep has a table."""
    return (work / "sweep" / "sweep.csv").is_file()


def read_sweep(work: Path) -> list[Tried]:
    """Read all combinations, in the table's order: best first for the patch alone."""
    with (work / "sweep" / "sweep.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    found: dict[tuple[str, str], Tried] = {}
    for row in rows:
        key = row["arm"], row["seed"]
        if key not in found:
            options = flat(json.loads(row["options"]) or {})
            found[key] = Tried(*key, options, {})
        by_radius = {**found[key].by_radius, int(row["radius"]): row}
        found[key] = Tried(*key, found[key].options, by_radius)
    return list(found.values())


def sweep_table(work: Path, study: Study | None) -> str:
    """Write all combinations with the click test at radius 0 and 1."""
    if not there(work):
        return MISSING
    tried = read_sweep(work)
    names = list(dict.fromkeys(n for one in tried for n in one.options if n != _MODE))
    radii = sorted({radius for one in tried for radius in one.by_radius})
    chosen = {id(one) for one in chosen_of(tried, study).values()}
    body = []
    for one in tried:
        arm = _ARM_OF.get(str(one.options.get(_MODE)), one.arm)
        first = next(iter(one.by_radius.values()))
        body.append(
            [
                f"**{arm}**" if id(one) in chosen else arm,
                *(_short(one.options.get(name)) for name in names),
                *(_figure(one, radius, name) for radius in radii for name in FIGURES),
                _minutes(first),
            ]
        )
    places = {0: "patch", 1: "3 × 3", 2: "5 × 5", 3: "7 × 7"}
    titles = [f"{places[radius]}: {t}" for radius in radii for t in FIGURES.values()]
    header = ["arm", *(name.split(".")[-1] for name in names), *titles, "minutes"]
    return markdown(header, body)


def chosen_text(work: Path, study: Study | None) -> str:
    """Say which combinations the registered arms have."""
    if not there(work):
        return MISSING
    chosen = chosen_of(read_sweep(work), study)
    if not chosen:
        return "No row has exactly the options of an arm of `click-crc`."
    arms = ", ".join(sorted(_ARM_OF[mode] for mode in chosen))
    return f"Rows with a bold arm ({arms}) have the options of that arm in `click-crc`."


def chosen_of(tried: list[Tried], study: Study | None) -> dict[str, Tried]:
    """Find for each mode the combination that has all options of the study's arm."""
    wanted: dict[str, dict[str, Any]] = {}
    for arm, content in study.config.arms.items() if study else ():
        if content.encoder is None and study:
            options = arm_config(study.config, arm, 0, (), None).model_dump(mode="json")
            wanted[options["context"]["context_mode"]] = flat(options)
    found: dict[str, Tried] = {}
    for one in tried:
        mode = str(one.options.get(_MODE))
        if mode not in wanted or mode in found:
            continue
        if all(wanted[mode].get(name) == value for name, value in one.options.items()):
            found[mode] = one
    return found


def flat(options: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Write nested options with dots."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[above + key] = value
    return found


def _short(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _figure(one: Tried, radius: int, name: str) -> str:
    row = one.by_radius.get(radius)
    return f"{float(row[name]):.3f}" if row and row[name] != "nan" else ""


def _minutes(row: Mapping[str, str]) -> str:
    seconds = float(row["windows"]) * float(row["seconds_per_window"])
    return f"{seconds / 60:.1f}" if seconds == seconds else ""
