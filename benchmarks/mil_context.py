"""Slide classifiers on small tumours: single patches against the tissue around them.

Averages over neighbours dilute a tumour of a few patches and smooth its noise away; which
of the two wins is measured here. The same models train on the same folds of a generated
cohort at each radius, so that differences to radius 0 are paired::

    python -m benchmarks.mil_context --out ~/mil-context --threads 1

An interrupted call resumes. `mil_context.json` has all figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import attention
from benchmarks.results.commands import once, train
from benchmarks.results.tables import markdown

MEASURES = ("auroc", "balanced_accuracy")


def make_features(asked: argparse.Namespace) -> tuple[Path, Path]:
    """Generate the cohort and extract its features; finished slides are kept."""
    cohort, features = asked.out / "cohort", asked.out / "features"
    sample: list[object] = ["--slides", asked.slides, "--size", asked.size]
    sample += ["--tumour-share", asked.share, "--seed", asked.seed]
    sample += ["--field-effect"] if asked.field_effect else []
    once(cohort / "cohort.csv", "sample", *sample, "--out", cohort)
    grid = ("--mpp", asked.mpp, "--patch-size", asked.patch_size)
    threads = ("--threads", asked.threads)
    words = ("extract", cohort, "--encoder", asked.encoder, *grid, *threads)
    once(None, *words, "--out", features)
    return cohort, features


def train_radii(
    asked: argparse.Namespace, cohort: Path, features: Path, model: str
) -> dict[int, Path]:
    """Train a model at each radius, on the same folds and seeds."""
    runs = {}
    for radius in asked.radius:
        runs[radius] = asked.out / model / f"radius-{radius}"
        train(
            runs[radius],
            *("mil", "train", cohort / "cohort.csv", "--features", features),
            *("--model", model, "--context", radius, "--folds", asked.folds),
            *("--seeds", asked.seeds, "--padded", "--batch-bags", 8),
            *("--threads", asked.threads),
        )
    return runs


def compare(out: Path, runs: Mapping[int, Path]) -> dict[str, Any]:
    """Compare the radii of a model in pairs; the first is the reference."""
    folder = out / "compared"
    once(None, "mil", "compare", *runs.values(), "--out", folder)
    content: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    return content


def rows_of(
    model: str,
    content: Mapping[str, Any],
    runs: Mapping[int, Path],
    looked: Mapping[int, tuple[float, float, float]],
) -> list[list[str]]:
    """Give a row per radius: figures with intervals by patient, and differences."""
    rows = []
    for radius, name in zip(runs, content["figures"], strict=True):
        figures = content["figures"][name]
        less = content["differences"].get(name)
        rows.append(
            [
                model,
                str(radius),
                *(_interval(figures["pooled"], figures, m) for m in MEASURES),
                "{:.3f} [{:.3f}, {:.3f}]".format(*looked[radius]),
                *(_interval(less, less, m, "+") if less else "" for m in MEASURES),
            ]
        )
    return rows


def _interval(
    values: Mapping[str, Any], found: Mapping[str, Any], name: str, sign: str = ""
) -> str:
    low, high = found["by_patient"][name]
    return f"{values[name]:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["abmil", "clam_sb"])
    parser.add_argument("--radius", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--slides", type=int, default=60)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--field-effect", action="store_true")
    parser.add_argument("--encoder", default="offline:efficientnet_lite0")
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--patch-size", type=int, default=112)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, and print the table."""
    asked = read_arguments(words)
    cohort, features = make_features(asked)
    rows: list[list[str]] = []
    found: dict[str, Any] = {}
    for model in asked.models:
        runs = train_radii(asked, cohort, features, model)
        content = compare(asked.out / model, runs)
        looked = {
            radius: attention.mean_auroc(list(attention.look(run, features, cohort)))
            for radius, run in runs.items()
        }
        rows += rows_of(model, content, runs, looked)
        found[model] = {**content, "attention_auroc": looked}
        # After each model, so that an interrupted call leaves what is done.
        file = asked.out / "mil_context.json"
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    less = f"less radius {asked.radius[0]}'s"
    header = ["model", "radius", "AUROC", "balanced accuracy", "AUROC of attention"]
    print(markdown([*header, f"AUROC {less}", f"balanced accuracy {less}"], rows))


if __name__ == "__main__":
    main()
