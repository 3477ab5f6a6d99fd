"""Tables of a study for the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_mcm.core.studies.study_config import StudyConfig
from napari_mcm.core.studies.study_differences import Row, by_trial, compare

SHOWN: Mapping[str, str] = {
    "few_shot_auroc": "few-shot AUROC",
    "similarity_auroc": "similarity AUROC",
    "probe_auroc": "linear probe AUROC",
    "neighbour_gain": "neighbour gain",
    "anisotropy": "mean similarity",
    "effective_rank": "effective rank",
    "held_out_loss": "loss on held-out windows",
    "seconds_per_window": "seconds per window",
}


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arms(
    rows: Sequence[Row],
    config: StudyConfig,
    names: Mapping[str, str],
    *,
    seeds: bool = False,
) -> str:
    """Write the mean of each arm over folds and seeds, and of each seed over folds."""
    write = _mean_and_seeds if seeds else _mean
    body = [
        [name, *(write(by_trial(rows, arm, figure)) for figure in SHOWN)]
        for arm, name in names.items()
        if arm in config.arms
    ]
    return markdown(["arm", *SHOWN.values()], body)


def _mean(values: Mapping[tuple[str, int], float]) -> str:
    return short(float(np.mean(list(values.values())))) if values else ""


def _mean_and_seeds(values: Mapping[tuple[str, int], float]) -> str:
    if not values:
        return ""
    seeds = sorted({seed for _, seed in values})
    means = [np.mean([v for (_, s), v in values.items() if s == one]) for one in seeds]
    mean = _mean(values)
    if len(seeds) == 1:
        return mean
    return f"{mean} ({', '.join(short(float(m)) for m in means)})"


def differences(
    rows: Sequence[Row], pairs: Mapping[tuple[str, str], str], figures: Sequence[str]
) -> str:
    """Write differences between arms in pairs of fold and seed, and what they are for."""
    body = []
    for (arm, control), meaning in pairs.items():
        cells = []
        for figure in figures:
            found = compare(rows, arm, control, figure)
            cells.append(
                ""
                if found is None
                else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], "
                f"{found.above}/{found.pairs}"
            )
        body.append([f"{arm} − {control}", meaning, *cells])
    return markdown(["arms", "what it shows", *(SHOWN[f] for f in figures)], body)


def verdict(rows: Sequence[Row], arm: str, control: str, figure: str) -> str:
    """Say in words what a difference shows."""
    found = compare(rows, arm, control, figure)
    if found is None:
        return ""
    told = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    if found.low > 0:
        says = "higher, with an interval above zero"
    elif found.high < 0:
        says = "lower, with an interval below zero"
    else:
        says = "no difference found: the interval contains zero"
    return f"{SHOWN[figure]}, {arm} against {control}: {told}, {says}."


def short(value: float) -> str:
    """Write a number with three digits."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
