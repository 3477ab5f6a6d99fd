"""Compare options of a fine-tuning by the click test: one arm per combination.

    python -m benchmarks.studies.sweep sweep.json --data ../shared/data --out ~/sweep
    python -m benchmarks.studies.sweep sweep.json --data ../shared/data --out ~/sweep --table

``sweep.json`` names the protocol whose slides, grid and shared options apply, and the
options to try: each of ``arms`` by its name, and every combination of ``grid``. Options are
written with dots. ``serial`` may choose other pairs of sections than the protocol's::

    {
      "protocol": "click-crc",
      "serial": [["crc_section1", "crc_section3"]],
      "seeds": 1,
      "arms": {"N-slow": {"context.context_mode": "neighbours",
                          "optimiser.student_lr": 1e-4}},
      "grid": {"context.context_mode": ["none", "masked", "neighbours"],
               "target.loss": ["l1", "l2"],
               "optimiser.student_lr": [2e-4, 5e-4, 1e-3]}
    }

The same command resumes; two processes may share one folder. Combinations that are added
to the file later are run, and finished ones stay.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.studies.prepare import HERE, slides_of, with_arms

from napari_mcm.cli.drive import drive
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import StudyConfig, arm_config
from napari_mcm.core.studies.study_differences import Row, rows_of
from napari_mcm.core.training.options import merge_preset

SHOWN = (
    "click_recall_1",
    "click_recall_10",
    "click_recall_1_near",
    "click_recall_1 (unseen)",
    "click_median_rank",
    "windows",
    "seconds_per_window",
)


def sweep_config(content: Mapping[str, Any], data: Path, out: Path) -> StudyConfig:
    """Make a study with one arm per combination of options, beside A and B."""
    name = content["protocol"]
    protocol = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    protocol |= {key: content[key] for key in ("train", "serial") if key in content}
    study = with_arms(protocol["study"], ["A", "B"])
    study["arms"] |= {arm: {"options": nested(o)} for arm, o in options_of(content)}
    study["against"] = {arm: "A" for arm in study["arms"] if arm != "A"}
    study["base"] = merge_preset(study["base"], nested(content.get("base", {})))
    study |= {key: content[key] for key in ("radii", "seeds") if key in content}
    study |= slides_of(name, protocol, data.resolve()) | {"out": str(out.resolve())}
    config = StudyConfig.model_validate(study)
    for arm in config.arms:
        arm_config(config, arm, 0, (), None)
    return config


def options_of(content: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the arms of a sweep: those with a name, then all combinations of the grid."""
    found = list(content.get("arms", {}).items())
    grid = content.get("grid", {})
    for values in itertools.product(*grid.values()) if grid else ():
        name = "_".join(
            f"{value:g}" if _is_number(value) else value for value in values
        )
        found.append((name, dict(zip(grid, values, strict=True))))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that are written with dots as nested dictionaries."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        *groups, last = key.split(".")
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return found


def write_sweep(config: StudyConfig) -> str:
    """Write ``sweep.csv``, best first at the first radius, and return it as a table."""
    assert config.out is not None
    rows: list[Row] = []
    for path in config.out.glob("cells/*/*/*/summary.json"):
        rows += rows_of(json.loads(path.read_text(encoding="utf-8")))
    first = min(config.radii)
    best = {
        (row.arm, row.seed): row.figures.get(SHOWN[0], 0.0)
        for row in rows
        if row.radius == first
    }
    rows.sort(key=lambda row: (-best[row.arm, row.seed], row.arm, row.seed, row.radius))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "radius", *SHOWN, "options"])
    for row in rows:
        arm = config.arms.get(row.arm)
        options = json.dumps(arm.options if arm else None)
        figures = [f"{row.figures.get(name, float('nan')):.4g}" for name in SHOWN]
        writer.writerow([row.arm, row.seed, row.radius, *figures, options])
    write_text(config.out / "sweep.csv", text.getvalue())
    lines = [["arm", "seed", "radius", *SHOWN]]
    for row in rows:
        figures = [f"{row.figures.get(name, float('nan')):.3f}" for name in SHOWN]
        lines.append([row.arm, str(row.seed), str(row.radius), *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run what is not done yet of a sweep, and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=[], help="arms to run")
    parser.add_argument("--table", action="store_true", help="print what is done")
    given = parser.parse_args()
    content = json.loads(given.sweep.read_text(encoding="utf-8"))
    config = sweep_config(content, given.data, given.out)
    if not given.table:
        result = drive(run_study(config, arms=given.arms))
        print(*result.failed, sep="\n")
    print(write_sweep(config))


if __name__ == "__main__":
    main()
