"""Learned context at the click: MCM-KD's Transformer against the mean of the patches around.

MCM-KD trains a Transformer that fills masked patches from visible ones, and discards it.
Here it stays and mixes stored features: the s × s windows around a patch, all of their
patches visible, go through it, and its output at the patch's place, averaged over the
window placements that hold the patch nearest to their middle, replaces the patch's
features. It is judged by the click test on serial sections, against the mean over 3 × 3
and 5 × 5 patches, against itself with shuffled positions, and against an untrained head.

A finished run holds the student only. The head is trained on stored features of the
finished student, as the head warm-up of MCM-KD does; the head of a run's own checkpoint
can be given beside it::

    python benchmarks/learned_context.py --work WORK [--data ../shared/data]
        [--run RUN] [--features FOLDER] [--teacher-features FOLDER] [--head CHECKPOINT]

Without --run an MCM-KD run is made first (minutes). Writes learned_context.json and .md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.learned_parts.heads import (
    ASKED,
    LEARNED,
    SECTIONS,
    Sets,
    new_head,
    train_head,
)
from benchmarks.learned_parts.representations import Material, centre, representations
from safetensors.torch import load_file

from napari_mcm.core.evaluation.serial import (
    NEAR,
    WIDE,
    ClickTest,
    SerialConfig,
    click_test,
)
from napari_mcm.core.evaluation.squares import mean_over_squares, squares_of
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.model import ContextModel
from napari_mcm.core.registration import Registration, register_sections
from napari_mcm.core.registration.result import read_registration, write_registration
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.trainer import by_prefix

GRID = ("--mpp", "1", "--patch-size", "112")
MASKED = (
    *("--context-mode", "masked", "--loss", "l2", "--target-norm", "layernorm"),
    *("--student-lr", "1e-3", "--placements", "2", "--head-epochs", "8"),
)
MEASURES = {"within 2": WIDE, "within .75": NEAR}
BLOCK_UM = 1000.0


def measure(material: Material, queries: int, seed: int) -> list[dict[str, Any]]:
    """Take the click test of every representation, as it is and less its mean."""
    tests: dict[tuple[str, bool, str], ClickTest] = {}
    config = SerialConfig(queries=queries, query_seed=seed)
    for name, sets in representations(material):
        for centred in (False, True):
            used = centre(sets) if centred else sets
            for one, registration in material.registrations.items():
                test = click_test(used[one], used[ASKED], registration, config)
                tests[name, centred, one] = test
        print(name, *_recalls(tests, name), flush=True)
    return [_row(tests, *key) for key in tests]


def _recalls(
    tests: Mapping[tuple[str, bool, str], ClickTest], name: str
) -> list[float]:
    return [
        round(tests[name, centred, one].recall(1, within), 3)
        for centred in (False, True)
        for one in LEARNED
        for within in MEASURES.values()
    ]


def _row(
    tests: Mapping[tuple[str, bool, str], ClickTest],
    name: str,
    centred: bool,
    section: str,
) -> dict[str, Any]:
    """Return recalls, and their paired differences to the means with intervals."""
    test = tests[name, centred, section]
    slides = np.zeros(len(test), np.int64)
    blocks, _ = squares_of(slides, test.centres_um, BLOCK_UM)
    row: dict[str, Any] = {
        "features": name,
        "centred": centred,
        "pair": f"{section} to {ASKED}",
        "queries": len(test),
        "blocks": int(blocks.max()) + 1,
        "median_rank": test.median_rank,
    }
    for measure_name, within in MEASURES.items():
        row[measure_name] = test.recall(1, within)
        row[f"{measure_name}, chance"] = test.chance(1, within)
        for reference in ("mean of 3 × 3", "mean of 5 × 5"):
            # The same treatment of both: centred is compared with centred.
            other = tests[reference, centred, section]
            gain = test.hits(1, within).astype(float) - other.hits(1, within)
            row[f"{measure_name}, less {reference}"] = mean_over_squares(
                gain, slides, test.centres_um, BLOCK_UM
            )
    return row


def outcome(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Say which representations beat the 3 × 3 mean in all pairs and at both distances.

    To beat is that the whole paired interval lies above 0, four times.
    """
    found: dict[str, dict[str, bool]] = {}
    for reference in ("mean of 3 × 3", "mean of 5 × 5"):
        lows: dict[str, list[float]] = {}
        for row in rows:
            if row["features"].startswith(("K ", "prediction", "3 × 3 mean")):
                name = row["features"] + (", centred" if row["centred"] else "")
                gains = [row[f"{m}, less {reference}"][1] for m in MEASURES]
                lows.setdefault(name, []).extend(gains)
        found[reference] = {name: min(values) > 0 for name, values in lows.items()}
    return {
        f"beats the {reference}": [name for name, true in better.items() if true]
        for reference, better in found.items()
    }


def describe(rows: list[dict[str, Any]], result: Mapping[str, Any]) -> str:
    """Return the table and a paragraph as Markdown."""
    pairs = sorted({row["pair"] for row in rows})
    head = [
        f"{p.split()[0][-1]} → {p.split()[-1][-1]}, {m}"
        for p in pairs
        for m in MEASURES
    ]
    lines = [
        "| features | " + " | ".join(head) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for name in dict.fromkeys((r["features"], r["centred"]) for r in rows):
        cells = [
            _cell(row, m)
            for p in pairs
            for row in rows
            if (row["features"], row["centred"], row["pair"]) == (*name, p)
            for m in MEASURES
        ]
        label = name[0] + (", centred" if name[1] else "")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    said = "; ".join(f"{k}: {', '.join(v) or 'none'}" for k, v in result.items())
    return "\n".join([*lines, "", f"In both pairs and at both distances: {said}.", ""])


def _cell(row: Mapping[str, Any], name: str) -> str:
    mean, low, high = row[f"{name}, less mean of 3 × 3"]
    value = f"{row[name]:.3f}"
    if row["features"] == "mean of 3 × 3":
        return value
    return f"{value} ({mean:+.3f}; {low:+.3f} to {high:+.3f})"


def prepare(options: argparse.Namespace) -> tuple[FinetuneConfig, Sets, Sets]:
    """Make the run and the features that are not given, and read them."""
    slides = {
        n: options.data / "slides/crc_sections" / f"{n}.ome.tiff" for n in SECTIONS
    }
    learned = [str(slides[name]) for name in LEARNED]
    if options.run is None:
        options.run = options.work / "run"
        if not (options.run / "summary.json").exists():
            _verb("finetune", *learned, *GRID, *MASKED, "--out", options.run)
    config = Run.open(options.run).options(FinetuneConfig)
    needed: dict[str, tuple[str, tuple[str, ...]]] = {
        "features": (str(options.run), SECTIONS),
        "teacher_features": (config.teacher_spec, LEARNED),
    }
    read: list[Sets] = []
    for name, (encoder, sections) in needed.items():
        folder = getattr(options, name)
        if folder is None:
            folder = options.work / name
            inputs = [str(slides[section]) for section in sections]
            to = ("--encoder", encoder, "--precision", "float32", "--out", folder)
            _verb("extract", *inputs, *GRID, *to)
        files = {n: folder / f"{n}.features.zarr" for n in sections}
        read.append({n: read_features(file) for n, file in files.items()})
    return config, read[0], read[1]


def _verb(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "napari_mcm.cli", *map(str, arguments)]
    subprocess.run(command, check=True)


def register(options: argparse.Namespace) -> dict[str, Registration]:
    """Register the sections, or read their earlier registrations."""
    found = {}
    for name in LEARNED:
        file = options.work / f"{name}-{ASKED}.npz"
        if not file.exists():
            folder = options.data / "slides/crc_sections"
            paths = (folder / f"{n}.ome.tiff" for n in (name, ASKED))
            first, second = map(open_slide, paths)
            with first, second:
                write_registration(file, run(register_sections(first, second)))
        found[name] = read_registration(file)
    return found


def heads_of(
    options: argparse.Namespace, config: FinetuneConfig, student: Sets, teacher: Sets
) -> dict[str, ContextModel]:
    """Read the head of a checkpoint and train one, as far as they are asked for."""
    heads = {}
    if options.head is not None:
        own = new_head(config, student, teacher)
        own.load_state_dict(by_prefix(load_file(options.head))["head"])
        heads["the run's head"] = own
    if options.epochs:
        training = config.optimiser.model_copy(update={"head_epochs": options.epochs})
        config = config.model_copy(update={"optimiser": training})
        trained = train_head(config, options.run, student, teacher, options.windows)
        heads["trained on stored features"] = trained
    return heads


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("learned_context"))
    parser.add_argument("--run", type=Path, help="finished MCM-KD run on both sections")
    parser.add_argument("--features", type=Path, help="its features of all sections")
    parser.add_argument("--teacher-features", type=Path)
    parser.add_argument("--head", type=Path, help="a checkpoint of the run")
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=6, help="0: --head alone")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    config, student, teacher = prepare(options)
    material = Material(
        student,
        register(options),
        heads_of(options, config, student, teacher),
        new_head(config, student, teacher),
        config.context.s,
    )
    rows = measure(material, options.queries, options.seed)
    result = outcome(rows)
    settings = {
        "context": config.context.model_dump(),
        "windows": options.windows,
        "epochs": options.epochs,
        "seconds": round(time.monotonic() - began),
    }
    content = {"settings": settings, "outcome": result, "rows": rows}
    write_json(options.work / "learned_context.json", content)
    text = describe(rows, result)
    write_text(options.work / "learned_context.md", text)
    print(text)


if __name__ == "__main__":
    main()
