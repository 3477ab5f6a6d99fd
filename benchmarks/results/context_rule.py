"""The rule for the default, and what was expected, applied to the studies as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from benchmarks.results.context_folders import (
    FEW_SHOT,
    RECALL_1,
    Study,
    Value,
)
from benchmarks.results.tables import markdown

from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS

CANDIDATES = ("D", "F-l2", "N")
CONTROL = "A"


@dataclass(frozen=True)
class Decision:
    """What the rule says: the gain of each candidate, and the arm it chooses, if any."""

    gains: Mapping[str, Value | None]
    arm: str | None
    complete: bool


def decide(study: Study, radius: int = DEFAULT_RADIUS) -> Decision:
    """Choose the arm with the highest lower bound of its gain over A, if one is above 0.

    The bound is that of the interval over places, or over seeds where that is lower.
    """
    gains = {
        arm: study.difference(RECALL_1, arm, radius, CONTROL) for arm in CANDIDATES
    }
    bounds = {
        arm: gain.low
        for arm, gain in gains.items()
        if gain is not None and np.isfinite(gain.low)
    }
    best = max(bounds, key=lambda arm: bounds[arm], default=None)
    chosen = best if best is not None and bounds[best] > 0 else None
    complete = all(gain is not None and gain.complete for gain in gains.values())
    return Decision(gains, chosen, complete)


def rule_text(study: Study | None) -> str:
    """Write the rule's figures, and what follows from them."""
    side = 2 * DEFAULT_RADIUS + 1
    where = f"radius {DEFAULT_RADIUS}, {side} × {side} patches"
    if study is None:
        return f"*Not run yet*: the rule needs `click-crc` ({where})."
    found = decide(study)
    rows = [
        [
            f"{arm} − {CONTROL}",
            "" if gain is None else f"{gain.mean:+.3f}",
            "" if gain is None else _ends(gain.interval),
            "" if gain is None else _ends(gain.seeds),
            "not run yet" if gain is None else f"{gain.low:+.3f}",
            "0" if gain is None else f"{gain.done} of {gain.planned}",
        ]
        for arm, gain in found.gains.items()
    ]
    header = ["arms", "gain", "over places", "over seeds", "lower bound", "trials"]
    if not any(found.gains.values()):
        return f"{markdown(header, rows)}\n\nNot decided: no gain is measured yet."
    told = (
        f"The rule chooses **{found.arm}** (gain in recall@1 within 2, {where})."
        if found.arm
        else f"No lower bound is above 0 ({where}): the default stays."
    )
    if not found.complete:
        told += " Trials are missing, so this is provisional."
    return f"{markdown(header, rows)}\n\n{told}"


def _ends(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else ""


def expected_table(studies: Mapping[str, Study]) -> str:
    """Write what was expected before the runs, what was found, and whether it held."""
    click, glas = studies.get("click-crc"), studies.get("glas")
    rows = []
    for arm in ("F-l2", "N"):
        gain = click.difference(RECALL_1, arm, 0, CONTROL) if click else None
        what = (
            f"`click-crc`: {arm} − A of recall@1, patch alone, ≥ .1, intervals above 0"
        )
        rows.append([what, *_held(gain, 0.1)])
    rows.append(["`click-crc`: recall@1 of the best arm, 3 × 3, ≥ .9", *_best(click)])
    gain = glas.difference(FEW_SHOT, "A", 1, "A", 0) if glas else None
    what = "`glas`: 3 × 3 − patch of few-shot AUROC, A, ≥ .1, interval above 0"
    rows.append([what, *_held(gain, 0.1)])
    return markdown(["expected", "found", "held"], rows)


def _held(gain: Value | None, least: float) -> tuple[str, str]:
    if gain is None:
        return "not run yet", ""
    text = f"{gain.mean:+.3f} {_ends(gain.interval)}".strip()
    if np.isfinite(gain.seeds[0]):
        text += f"; seeds {_ends(gain.seeds)}"
    if not np.isfinite(gain.low):
        return text, "no interval yet"
    return text, _yes(gain.mean >= least and gain.low > 0, gain.complete)


def _best(study: Study | None) -> tuple[str, str]:
    """Say which fine-tuned arm has the highest recall at radius 1."""
    found = {
        arm: value
        for arm in CANDIDATES
        if study and (value := study.value(RECALL_1, arm, 1)) is not None
    }
    if not found:
        return "not run yet", ""
    best = max(found, key=lambda arm: found[arm].mean)
    complete = len(found) == len(CANDIDATES) and all(
        value.complete for value in found.values()
    )
    mean = found[best].mean
    return f"{mean:.3f} ({best})", _yes(mean >= 0.9, complete)


def _yes(held: bool, complete: bool) -> str:
    return ("yes" if held else "no") + ("" if complete else ", so far")
