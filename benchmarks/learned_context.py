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
import copy
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.sparse import csr_array
from torch import Tensor, nn

from napari_mcm.core.encoders import load_encoders
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.evaluation.serial import (
    NEAR,
    WIDE,
    ClickTest,
    SerialConfig,
    click_test,
)
from napari_mcm.core.evaluation.serial_result import mean_interval
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.features.neighbourhood import average_neighbourhood, has_features
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.head_pretraining import HeadPretraining, KeptWindows
from napari_mcm.core.mcm.model import ContextModel
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.registration import Registration, register_sections
from napari_mcm.core.registration.result import read_registration, write_registration
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.trainer import by_prefix

SECTIONS = ("crc_section1", "crc_section2", "crc_section3")
LEARNED, ASKED = SECTIONS[:2], SECTIONS[2]
GRID = ("--mpp", "1", "--patch-size", "112")
MASKED = (
    *("--context-mode", "masked", "--loss", "l2", "--target-norm", "layernorm"),
    *("--student-lr", "1e-3", "--placements", "2", "--head-epochs", "8"),
)
MEASURES = {"within 2": WIDE, "within .75": NEAR}
BLOCK_UM = 1000.0
CHUNK = 256  # windows at a time

Placements = Literal["central", "all"]
_KINDS: tuple[Placements, ...] = ("central", "all")
Sets = dict[str, FeatureSet]
Rows = NDArray[np.int64]


def windows_around(features: FeatureSet, s: int) -> Rows:
    """Return all windows of s × s places that hold a patch with features.

    Returns rows of the features, shape (W, s²), in row-major order of the places; -1
    where a place has no patch with features. Windows may reach beyond the lattice.
    """
    present = has_features(features)
    lattice = features.grid.lattice
    corner = lattice.min(axis=0)
    height, width = lattice.max(axis=0) - corner + 1
    edge = s - 1
    index = np.full((height + 2 * edge, width + 2 * edge), -1, np.int64)
    places = lattice - corner + edge
    if len(np.unique(places, axis=0)) != len(places):
        raise ValueError("patches share a place of the lattice")
    index[tuple(places[present].T)] = np.flatnonzero(present)
    view = np.lib.stride_tricks.sliding_window_view(index, (s, s))
    windows = view.reshape(-1, s * s)
    return np.ascontiguousarray(windows[(windows >= 0).any(axis=1)])


def places_of(s: int, placements: Placements) -> NDArray[np.bool_]:
    """Return at which places of a window its outputs are used, shape (s²,).

    ``"central"``: the place in the middle, or the four around it where s is even.
    """
    if placements == "all":
        return np.ones(s * s, bool)
    near = np.abs(np.arange(s) - (s - 1) / 2) <= 0.5
    return np.asarray(np.outer(near, near)).reshape(-1)


def contextualise(
    head: nn.Module,
    features: FeatureSet,
    s: int,
    hide: bool = False,
    shuffle: int | None = None,
) -> dict[Placements, FeatureSet]:
    """Replace each patch's features by the mean of the head's outputs at its places.

    Parameters
    ----------
    head : Module
        Takes features (V, D), and which of the (W, s²) places are visible and which are
        asked; returns one row for each of those asked.
    features : FeatureSet
        Features of the student, not averaged or averaged.
    s : int
        Places per side of a window.
    hide : bool, optional
        Mask the patch that is asked for, all others stay visible; in one window for each
        patch, as each takes a pass of its own.
    shuffle : int, optional
        Seed with which the patches of each window are put at random places.

    Returns
    -------
    dict of str to FeatureSet
        Same patches, NaN where there were no features: means over the central windows
        around each patch and, unless it is masked, over all.
    """
    windows = windows_around(features, s)
    inside = {
        kind: np.broadcast_to(places_of(s, kind), windows.shape) for kind in _KINDS
    }
    if hide:
        first = np.arange(s * s) == places_of(s, "central").argmax()
        inside = {"central": np.broadcast_to(first, windows.shape)}
    if shuffle is not None:
        draws = np.random.default_rng(shuffle).random(windows.shape)
        order = draws.argsort(axis=1)
        windows = np.take_along_axis(windows, order, axis=1)
        inside = {k: np.take_along_axis(v, order, axis=1) for k, v in inside.items()}
    asked = np.any(list(inside.values()), axis=0) & (windows >= 0)
    kept = asked.any(axis=1)
    windows, asked = windows[kept], asked[kept]
    found = _outputs(head, features.features, windows, asked, hide)
    rows = windows[asked]
    results: dict[Placements, FeatureSet] = {}
    for kind, places in inside.items():
        # (N, outputs): every patch with features has windows of each kind.
        counts = csr_array(
            (places[kept][asked].astype(np.float32), (rows, np.arange(len(rows)))),
            shape=(len(features), len(rows)),
        )
        with np.errstate(invalid="ignore"):
            means = counts @ found / counts.sum(axis=1)[:, None]
        results[kind] = replace(features, features=np.asarray(means, np.float32))
    return results


@torch.inference_mode()
def _outputs(
    head: nn.Module,
    features: NDArray[np.float32],
    windows: Rows,
    asked: NDArray[np.bool_],
    hide: bool,
) -> NDArray[np.float32]:
    """Return the head's outputs at the places that are asked, in row-major order."""
    found = []
    for start in range(0, len(windows), CHUNK):
        rows, wanted = windows[start : start + CHUNK], asked[start : start + CHUNK]
        visible = (rows >= 0) & ~wanted if hide else rows >= 0
        seen = torch.from_numpy(features[rows[visible]])
        output: Tensor = head(seen, torch.from_numpy(visible), torch.from_numpy(wanted))
        found.append(output.numpy())
    return np.concatenate(found)


class Filled(nn.Module):
    """Ask a head for the tokens of patches, and for its predictions beside them.

    A place that is asked and visible is a token of the patch's own features, which training
    never reads; a place that is asked and not visible is masked.

    Parameters
    ----------
    head : ContextModel
        Stays as it is.
    """

    def __init__(self, head: ContextModel, predict: bool = False) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).eval()
        self.predictor = self.head.predictor if predict else None
        self.head.add_module("predictor", nn.Identity())

    def forward(self, features: Tensor, visible: Tensor, asked: Tensor) -> Tensor:
        """Return tokens (M, width), or with predictions (M, width + teacher_dim)."""
        tokens: Tensor = self.head(features, visible, asked)
        if self.predictor is None:
            return tokens
        return torch.cat([tokens, self.predictor(tokens)], dim=1)


@dataclass(frozen=True)
class Material:
    """What is measured: features by section, registrations, and heads by name."""

    student: Sets
    registrations: Mapping[str, Registration]
    heads: Mapping[str, ContextModel]
    untrained: ContextModel
    s: int


def kept_windows(
    student: Sets, teacher: Sets, config: FinetuneConfig, count: int
) -> KeptWindows:
    """Draw windows of stored features of the sections of the training set."""
    s, parts = config.context.s, []
    least = config.context.window_tissue * s * s
    for name in LEARNED:
        windows = windows_around(student[name], s)
        windows = windows[(windows >= 0).sum(axis=1) >= least]
        rng = np.random.default_rng((config.optimiser.seed, 61))
        rows = rng.permutation(windows)[: count // len(LEARNED)]
        tissue = rows >= 0
        filled = [
            torch.from_numpy(np.where(tissue[..., None], one.features[rows], 0))
            for one in (student[name], teacher[name])
        ]
        parts.append((tissue, *filled))
    shown, seen, taught = zip(*parts, strict=True)
    return KeptWindows(np.concatenate(shown), torch.cat(seen), torch.cat(taught))


def new_head(config: FinetuneConfig, student: Sets, teacher: Sets) -> ContextModel:
    """Make the head that a run of this configuration starts with."""
    first, second = (sets[LEARNED[0]].features.shape[1] for sets in (student, teacher))
    with seeded(config.optimiser.seed):
        return ContextModel(first, second, config.context)


def train_head(
    config: FinetuneConfig, run_dir: Path, student: Sets, teacher: Sets, count: int
) -> ContextModel:
    """Train a head on stored features of the finished student."""
    specs = (str(run_dir), config.teacher_spec)
    first, second = run(load_encoders(specs, config.compute))
    trainer = McmTrainer(first, second, config)
    assert isinstance(trainer.head, ContextModel)
    kept = kept_windows(student, teacher, config, count)
    trainer.target = trainer.target.measured(kept.taught[torch.from_numpy(kept.tissue)])
    if trainer.target.constant is not None:
        trainer.head.predictor.begin_at(trainer.target.constant)
    run(HeadPretraining(trainer, (), config, run_dir).train(kept), _print_note)
    return trainer.head


def _print_note(event: object) -> None:
    if isinstance(event, Note):
        print(event.text, flush=True)


def representations(material: Material) -> Iterator[tuple[str, Sets]]:
    """Make all features that are compared, one after the other."""
    student, s = material.student, material.s
    yield "patch alone", student
    means = {}
    for radius in (1, 2):
        config = NeighbourhoodConfig(radius=radius)
        means[radius] = {
            name: average_neighbourhood(one, config) for name, one in student.items()
        }
        yield f"mean of {config.describe()}", means[radius]
    for name, head in material.heads.items():
        yield from _of_head(name, head, student, means[1], s)
    for kind, sets in _contextualised(Filled(material.untrained), student, s).items():
        yield f"K (untrained head), {kind} windows", sets


def _of_head(
    name: str, head: ContextModel, student: Sets, means: Sets, s: int
) -> Iterator[tuple[str, Sets]]:
    width = len(head.mask_token)
    both = _contextualised(Filled(head, predict=True), student, s)
    tokens = {kind: _columns(sets, 0, width) for kind, sets in both.items()}
    for kind, sets in tokens.items():
        yield f"K ({name}), {kind} windows", sets
    yield f"prediction ({name})", _columns(both["central"], width, None)
    yield f"3 × 3 mean beside K ({name})", _beside(means, tokens["central"])
    radius = NeighbourhoodConfig(radius=1)
    averaged = {
        k: average_neighbourhood(v, radius) for k, v in tokens["central"].items()
    }
    yield f"3 × 3 mean of K ({name})", averaged
    del both
    shuffled = _contextualised(Filled(head), student, s, shuffle=0)
    yield f"K ({name}), shuffled positions", shuffled["central"]
    masked = _contextualised(Filled(head, predict=True), student, s, hide=True)
    alone = _columns(masked["central"], width, None)
    yield f"prediction ({name}), patch masked", alone
    of_means = _contextualised(Filled(head), means, s)
    yield f"K of the 3 × 3 mean ({name})", of_means["central"]


def _contextualised(
    head: nn.Module, sets: Sets, s: int, **options: Any
) -> dict[Placements, Sets]:
    by_section = {n: contextualise(head, one, s, **options) for n, one in sets.items()}
    kinds = next(iter(by_section.values()))
    return {kind: {n: one[kind] for n, one in by_section.items()} for kind in kinds}


def _columns(sets: Sets, start: int, stop: int | None) -> Sets:
    return {n: replace(f, features=f.features[:, start:stop]) for n, f in sets.items()}


def _beside(one: Sets, other: Sets) -> Sets:
    """Join two representations, each of unit length."""
    joined = {}
    for name, features in one.items():
        pair = [_unit(f.features) for f in (features, other[name])]
        joined[name] = replace(features, features=np.concatenate(pair, axis=1))
    return joined


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), np.float32)


def _centred(sets: Sets) -> Sets:
    """Subtract the mean over the sections of the training set."""
    known = np.concatenate([sets[n].features[has_features(sets[n])] for n in LEARNED])
    mean = known.mean(axis=0, dtype=np.float64).astype(np.float32)
    return {k: replace(v, features=v.features - mean) for k, v in sets.items()}


def measure(material: Material, queries: int, seed: int) -> list[dict[str, Any]]:
    """Take the click test of every representation, as it is and less its mean."""
    tests: dict[tuple[str, bool, str], ClickTest] = {}
    config = SerialConfig(queries=queries, query_seed=seed)
    for name, sets in representations(material):
        for centred in (False, True):
            used = _centred(sets) if centred else sets
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
    cells = np.floor(test.centres_um / BLOCK_UM).astype(np.int64)
    blocks = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
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
            row[f"{measure_name}, less {reference}"] = mean_interval(gain, blocks)
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
