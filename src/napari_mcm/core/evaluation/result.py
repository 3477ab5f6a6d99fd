"""The result of an evaluation, and the files that hold it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.evaluation.intervals import (
    Estimate,
    Resampling,
    widen_at_edge,
)
from napari_mcm.core.evaluation.metrics import BY_CHANCE, TITLES
from napari_mcm.core.evaluation.task import Measured
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.runtime.files import write_text

Interval = tuple[float, float]
_COLUMNS = (
    *("measure", "encoder", "value", "low", "high"),
    *("difference", "difference_low", "difference_high"),
)


@dataclass(frozen=True)
class Row:
    """One measure of one encoder.

    Attributes
    ----------
    measure, encoder : str
        Which measure, a key of `TITLES`, and which encoder.
    value : float
        The measured value.
    interval : tuple of float
        Its 95 % interval.
    difference : float or None
        Difference to the reference; None for the reference itself.
    difference_interval : tuple of float, or None
        Its paired 95 % interval.
    details : mapping
        By class, group or draw.
    """

    measure: str
    encoder: str
    value: float
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Encoders side by side on the same labelled patches.

    Attributes
    ----------
    encoders : tuple of str
        The first is the reference.
    rows : tuple of Row
        By measure, then encoder.
    classes : mapping of str to int
        Number of patches by class.
    groups : tuple of str
        Names of the groups that were left out in turn.
    resampling : str
        What the intervals are drawn from, and what they do not cover.
    level : str
        ``group`` or ``block``.
    protocol : mapping
        Options of the measurement, ready for JSON.
    seconds : float
        Duration, extraction included.
    neighbourhood : NeighbourhoodConfig
        What the features of each patch cover.
    """

    encoders: tuple[str, ...]
    rows: tuple[Row, ...]
    classes: Mapping[str, int]
    groups: tuple[str, ...]
    resampling: str
    level: str
    protocol: Mapping[str, Any]
    seconds: float = 0.0
    neighbourhood: NeighbourhoodConfig = NeighbourhoodConfig()

    @property
    def majority(self) -> float:
        """Return the accuracy of the majority-class baseline.

        Returns
        -------
        float
            Frequency of the most frequent class.
        """
        return max(self.classes.values()) / sum(self.classes.values())

    def row(self, measure: str, encoder: str) -> Row:
        """Return a measure of an encoder.

        Parameters
        ----------
        measure, encoder : str
            Which measure of which encoder.

        Returns
        -------
        Row
            Value, interval and difference.
        """
        return next(
            row for row in self.rows if (row.measure, row.encoder) == (measure, encoder)
        )

    def measures(self) -> list[str]:
        """Return the names of the measures, in order.

        Returns
        -------
        list of str
            Each name once.
        """
        return list(dict.fromkeys(row.measure for row in self.rows))


def compare(
    measured: Mapping[str, Mapping[str, Measured]], resampling: Resampling
) -> tuple[Row, ...]:
    """Compare encoders, with intervals of values and of differences.

    Parameters
    ----------
    measured : mapping of str to mapping of str to Measured
        By encoder and measure; the first encoder is the reference.
    resampling : Resampling
        The resamples that all of them share.

    Returns
    -------
    tuple of Row
        By measure, then encoder.
    """
    reference = next(iter(measured))
    rows = []
    for name in TITLES:
        for encoder, found in measured.items():
            if name in found:
                first = None if encoder == reference else measured[reference][name]
                rows.append(_row(name, encoder, found[name], first, resampling))
    return tuple(rows)


def _row(
    name: str,
    encoder: str,
    found: Measured,
    first: Measured | None,
    resampling: Resampling,
) -> Row:
    difference = None if first is None else found.estimate.minus(first.estimate)
    # Resamples are a first-order approximation: they may leave the measure's range.
    low, high = resampling.interval(found.estimate)
    if name in BY_CHANCE or name.endswith("accuracy"):
        inside = max(low, 0.0), min(high, 1.0)
        units = resampling.extra.shape[1]
        low, high = widen_at_edge(found.estimate.value, inside, units)
    return Row(
        name,
        encoder,
        found.estimate.value,
        (low, high),
        None if difference is None else difference.value,
        None if difference is None else resampling.interval(difference),
        found.details,
    )


def write_results(out: Path, result: Evaluation) -> list[Path]:
    """Write ``evaluation.json`` and ``evaluation.csv`` into a folder.

    Parameters
    ----------
    out : Path
        The folder.
    result : Evaluation
        The result.

    Returns
    -------
    list of Path
        The two files.
    """
    paths = [out / "evaluation.json", out / "evaluation.csv"]
    content = json.dumps(plain(describe(result)), indent=2, ensure_ascii=False)
    write_text(paths[0], content + "\n")
    write_text(paths[1], _as_csv(result.rows))
    return paths


def describe(result: Evaluation) -> dict[str, Any]:
    """Return a result as nested dicts and lists for JSON.

    Parameters
    ----------
    result : Evaluation
        The result.

    Returns
    -------
    dict of str to Any
        May hold NaN; see :func:`plain`.
    """
    return {
        "encoders": list(result.encoders),
        "classes": dict(result.classes),
        "groups": list(result.groups),
        "intervals": {"level": result.level, "note": result.resampling},
        "baseline": {
            "auroc": 0.5,
            "accuracy": result.majority,
            "balanced_accuracy": 1 / len(result.classes),
        },
        "neighbourhood": result.neighbourhood.model_dump(),
        "protocol": dict(result.protocol),
        "seconds": result.seconds,
        "measures": [
            {
                "measure": row.measure,
                "encoder": row.encoder,
                "value": row.value,
                "interval": list(row.interval),
                "difference": row.difference,
                "difference_interval": row.difference_interval,
                "details": dict(row.details),
            }
            for row in result.rows
        ],
    }


def plain(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None.

    Parameters
    ----------
    value : Any
        Nested dicts, lists and numbers.

    Returns
    -------
    Any
        The same structure.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in rows:
        ends = row.difference_interval or ("", "")
        numbers = [row.value, *row.interval, row.difference, *ends]
        # The reference has no difference to itself: its columns stay empty.
        cells = [f"{v:.6g}" if isinstance(v, float) else "" for v in numbers]
        table.writerow([row.measure, row.encoder, *cells])
    return text.getvalue()


def to_json(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Return measures in full, for reuse by a later evaluation.

    Parameters
    ----------
    measured : mapping of str to Measured
        By measure.

    Returns
    -------
    dict of str to Any
        Ready for JSON.
    """
    return {
        name: {
            "value": plain(one.estimate.value),
            # Enough to compute the intervals again, without any resample.
            "influence": one.estimate.influence.tolist(),
            "by_group": None
            if one.estimate.by_group is None
            else plain(one.estimate.by_group.tolist()),
            "details": plain(dict(one.details)),
        }
        for name, one in measured.items()
    }


def from_json(content: Mapping[str, Any]) -> dict[str, Measured]:
    """Return the measures that :func:`to_json` stored.

    Parameters
    ----------
    content : mapping
        Content of the file.

    Returns
    -------
    dict of str to Measured
        By measure.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the content is damaged.
    """
    return {
        str(name): Measured(
            Estimate(
                _number(one["value"]),
                np.asarray(one["influence"], np.float64),
                None
                if one["by_group"] is None
                else np.asarray([_number(v) for v in one["by_group"]], np.float64),
            ),
            dict(one["details"]),
        )
        for name, one in content.items()
    }


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
