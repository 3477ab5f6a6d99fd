"""From slide labels to attention: the generated cohorts, digits in bags, MCM-KD's effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import mil_digits
from benchmarks.results import attention
from benchmarks.results.commands import once, train
from benchmarks.results.context_classifiers import auroc_apart
from benchmarks.results.tables import markdown

from napari_mcm.core.mil.results import read_predictions

PAGES = ("mil",)
MODELS = ("abmil", "clam_sb", "mean")
OPTIONS = ("--padded", "--batch-bags", 8, "--folds", 5, "--seeds", 3)
COHORTS: dict[str, tuple[object, ...]] = {
    "large": ("--slides", 60, "--size", 4000),
    "small": ("--slides", 60, "--size", 8000, "--tumour-share", 0.03),
}


def values(data: Path, work: Path, pictures: Path) -> dict[str, str]:
    """Run what is missing; give the tables by name."""
    cohorts = {
        name: cohort_table(work, name, sample) for name, sample in COHORTS.items()
    }
    return {
        **cohorts,
        "encoders": encoders_table(work),
        "digits": digits_table(work),
    }


def cohort_table(work: Path, name: str, sample: tuple[object, ...]) -> str:
    """Train all models on a cohort; figures out of fold, and what attention found."""
    cohort, features = work / name / "cohort", work / name / "features"
    once(cohort / "cohort.csv", "sample", *sample, "--out", cohort)
    # Finished slides are skipped: it costs a second.
    once(None, "extract", cohort, "--mpp", 2, "--out", features)
    rows = []
    for model in MODELS:
        run_dir = work / name / model
        table = ("mil", "train", cohort / "cohort.csv", "--features", features)
        train(run_dir, *table, "--model", model, *OPTIONS)
        figures = _figures(run_dir)
        looks = model != "mean"
        rows.append(
            [
                f"`{model}`",
                _with_interval(figures, "auroc"),
                _with_interval(figures, "balanced_accuracy"),
                _attention(run_dir, features, cohort) if looks else "",
                _less(work / name / MODELS[0], run_dir) if rows else "",
            ]
        )
    header = ["model", "AUROC", "balanced accuracy", "AUROC of attention"]
    return markdown([*header, f"AUROC less `{MODELS[0]}`'s"], rows)


def encoders_table(work: Path) -> str:
    """Train on features of A, D and F on the same folds, and compare."""
    studied = work.parent / "fine-tuning" / "context" / "cells" / "part1" / "seed-0"
    encoders = {
        "A": "offline:efficientnet_lite0",
        "D": studied / "D" / "run",
        "F": studied / "F" / "run",
    }
    cohort = work / "large" / "cohort"
    for name, encoder in encoders.items():
        folder = work / "encoders" / name
        once(
            folder / "none",
            "extract",
            cohort,
            "--encoder",
            encoder,
            "--mpp",
            1,
            "--patch-size",
            112,
            "--out",
            folder,
        )
    out = work / "compared"
    folders = [work / "encoders" / name for name in encoders]
    once(
        out / "compare.json",
        "mil",
        "compare",
        *folders,
        "--cohort",
        cohort / "cohort.csv",
        "--out",
        out,
        "--model",
        "abmil",
        *OPTIONS,
    )
    content = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    rows = []
    for name, figures in content["figures"].items():
        apart = content["differences"].get(name)
        features = work / "encoders" / name
        rows.append(
            [
                name,
                _with_interval(figures, "auroc"),
                _with_interval(figures, "balanced_accuracy"),
                _attention(out / name, features, cohort),
                _apart(apart, "auroc") if apart else "",
                _apart(apart, "balanced_accuracy") if apart else "",
            ]
        )
    less = f"less {content['reference']}: "
    header = ["encoder", "AUROC", "balanced accuracy", "AUROC of attention"]
    return markdown([*header, less + "AUROC", less + "balanced accuracy"], rows)


def digits_table(work: Path) -> str:
    """Give the digits' AUROC by bags and model."""
    kept = work / "digits.json"
    if not kept.exists():
        kept.write_text(json.dumps(mil_digits.measure()), encoding="utf-8")
    rows = json.loads(kept.read_text(encoding="utf-8"))
    return markdown(["training bags", *mil_digits.MODELS], rows)


def _figures(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "figures.json").read_text())
    return content


def _with_interval(figures: dict[str, Any], name: str) -> str:
    low, high = figures["by_patient"][name]
    return f"{figures['pooled'][name]:.3f} [{low:.3f}, {high:.3f}]"


def _apart(difference: dict[str, Any], name: str) -> str:
    low, high = difference["by_patient"][name]
    return f"{difference[name]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _less(reference: Path, run_dir: Path) -> str:
    """Give the difference in AUROC of two models on the same folds, by patient."""
    one, two = read_predictions(run_dir), read_predictions(reference)
    assert one.slides == two.slides

    value, interval = auroc_apart(one, two)
    return _apart({"auroc": value, "by_patient": {"auroc": interval}}, "auroc")


def _attention(run_dir: Path, features: Path, cohort: Path) -> str:
    found = list(attention.look(run_dir, features, cohort))
    mean, low, high = attention.mean_auroc(found)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"
