"""Comparison of encoders on labelled patches: features, labels, measures, intervals, figure.

Each encoder's measures are computed on the same patches, folds and draws, and kept in
``parts`` under a hash of everything that they depend on, so that a repeated evaluation
computes only what changed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from napari_mcm.core.encoders.cost import Cost, recipe_cost
from napari_mcm.core.encoders.learned_from import seen_slides, seen_warning
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.evaluation.dataset import (
    LabelledPatches,
    Sets,
    gather,
    read_patients,
    read_sources,
)
from napari_mcm.core.evaluation.intervals import make_resampling
from napari_mcm.core.evaluation.labels import (
    check_counts,
    find_label_files,
    label_patches,
)
from napari_mcm.core.evaluation.metrics import PARTS, neighbour_gain
from napari_mcm.core.evaluation.probes import deal_folds
from napari_mcm.core.evaluation.result import (
    Evaluation,
    compare,
    from_json,
    to_json,
    write_results,
)
from napari_mcm.core.evaluation.task import Measured, Task
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.labelling.files import is_label_file
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.jobs import Job, Meter, Note, Progress
from napari_mcm.core.runtime.overall import Stages
from napari_mcm.core.runtime.threads import run_in_thread

# To be raised when a measure changes, so that no stored part of it is read.
_VERSION = 2


def evaluate(config: EvaluateConfig) -> Job[Evaluation]:
    """Compare encoders on labelled patches, as a job.

    Parameters
    ----------
    config : EvaluateConfig
        Encoders and slides, or folders of features; labels; protocol; output folder.

    Yields
    ------
    Event
        Progress of extraction and of each measure; notes.

    Returns
    -------
    Evaluation
        Also written to the output folder, with a figure. Earlier measurements on the same
        features with the same protocol are reused from ``parts``.

    Raises
    ------
    ConfigError
        If inputs are missing or do not fit each other.
    FeatureError
        If features are damaged, incomplete or of other patches, or too few patches are
        labelled.
    """
    began = time.monotonic()
    if config.out is None:
        raise ConfigError("no output folder given", hint="Choose one with --out")
    if config.centred and config.neighbourhood.radius > 1:
        raise ConfigError(
            "reaches beyond the eight neighbours that --centred lays around a point",
            "--context",
            "Use --context 1",
        )
    stages = Stages(6.0, 1.0, 1.0, 12.0)
    encoders = yield from stages.next(read_sources(config))
    for name, sets in encoders.items():
        warning = seen_warning(name, _seen(sets))
        if warning:
            yield Note(warning, "warning")
    encoders = yield from stages.next(_averaged(config, encoders))
    patches = yield from stages.next(_label(config, encoders))
    task = _task(config, patches)
    counted = ", ".join(f"{count} {name}" for name, count in patches.counts().items())
    yield Note(
        f"{len(patches)} labelled patches ({counted}) of {len(patches.slide_names)} "
        f"slides in {len(patches.group_names)} groups"
    )
    resampling = make_resampling(
        patches.groups,
        patches.slides,
        patches.places_um,
        config.protocol.block_um,
        config.protocol.resamples,
        config.protocol.seed,
    )
    measured = yield from stages.next(_measure_all(task, config.out / "parts"))
    result = Evaluation(
        tuple(measured),
        compare(measured, resampling),
        patches.counts(),
        patches.group_names,
        resampling.note,
        resampling.level,
        _describe_protocol(config, encoders),
        time.monotonic() - began,
        config.neighbourhood,
    )
    yield Progress("Writing tables and figure", 0, None, overall=1.0)
    _write(config.out, result)
    return result


def _seen(sets: Sets) -> list[str]:
    """Return the slides in the training set of the encoder of features."""
    first = next(iter(sets.values()))
    return seen_slides(first.encoder, [one.grid.slide for one in sets.values()])


def _averaged(
    config: EvaluateConfig, encoders: dict[str, Sets]
) -> Job[dict[str, Sets]]:
    """Average the features of all encoders over the same neighbourhood."""
    wanted = config.neighbourhood
    if not wanted.radius:
        return encoders
    meter = Meter(
        "Averaging over neighbours", sum(map(len, encoders.values())), "files"
    )
    averaged: dict[str, Sets] = {}
    for name, sets in encoders.items():
        found: dict[str, FeatureSet] = {}
        for slide, features in sets.items():
            yield meter.progress()
            found[slide] = yield from run_in_thread(
                meter.progress().stage, average_neighbourhood, features, wanted
            )
            yield meter.advance()
        averaged[name] = found
    return averaged


def _label(
    config: EvaluateConfig, encoders: Mapping[str, Sets]
) -> Job[LabelledPatches]:
    sets = next(iter(encoders.values()))
    pattern = config.label_pattern or ("*.csv" if config.centred else None)
    files = find_label_files(config.labels, list(sets), pattern)
    for slide in sets:
        if slide not in files:
            yield Note(f"{slide} has no labels and is left out", "warning")
    labels = {}
    for slide, path in files.items():
        grid = sets[slide].grid
        labels[slide] = label_patches(
            path, grid, config.covered, config.columns, config.centred
        )
        yield Progress("Labelling patches", len(labels), len(files), "slides")
        if not any(labels[slide]) and is_label_file(path):
            yield Note(f"{slide} has no labels in {path.name}", "warning")
        elif not any(labels[slide]):
            yield Note(
                f"{slide}: no patch lies in a region of {path.name}; is it of this slide?",
                "warning",
            )
    left = Counter(n for names in labels.values() for n in names if n in config.exclude)
    if left:
        text = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
        yield Note(f"patches left out by their class: {text}")
    patients = read_patients(config.groups) if config.groups else None
    return gather(encoders, labels, config.classes, config.exclude, patients)


def _task(config: EvaluateConfig, patches: LabelledPatches) -> Task:
    positive = None
    if config.positive is not None:
        if config.positive not in patches.classes:
            raise ConfigError(
                f"no patch is of class {config.positive}",
                "--positive",
                f"The classes are: {', '.join(patches.classes)}",
            )
        positive = patches.classes.index(config.positive)
    # Patches of one slide resemble each other: testing on them would measure the slide.
    if len(patches.group_names) < 2:
        raise ConfigError(
            f"all labelled patches are of one group ({patches.group_names[0]}): "
            "training and testing need different groups",
            hint="Label a second slide",
        )
    folds = deal_folds(patches.groups, config.protocol.folds)
    check_counts(patches.labels, patches.classes, folds, config.protocol.few_shot)
    return Task(patches, folds, positive, config.protocol, config.neighbourhood)


def _measure_all(task: Task, parts: Path) -> Job[dict[str, dict[str, Measured]]]:
    """Compute all measures of every encoder."""
    names = list(task.patches.features)
    stages, found = Stages(*[1.0] * len(names)), {}
    for name in names:
        found[name] = yield from stages.next(_measure(name, task, parts))
    return found


def _measure(name: str, task: Task, parts: Path) -> Job[dict[str, Measured]]:
    """Compute all measures of an encoder, or read those that are stored."""
    found: dict[str, Measured] = {}
    stages = Stages(*[1.0] * len(PARTS))
    for kind in PARTS:
        found |= yield from stages.next(_measure_part(name, kind, task, parts))
    found["neighbour_gain"] = neighbour_gain(
        found["probe_auroc"], found["surroundings_auroc"]
    )
    return found


def _measure_part(
    name: str, kind: str, task: Task, parts: Path
) -> Job[dict[str, Measured]]:
    """Compute a part of an encoder's measures, or read it where it is stored."""
    part = PARTS[kind]
    data = getattr(task.patches, part.source)[name]
    path = parts / f"{name}-{kind}-{_key(kind, data.tobytes(), task)}.json"
    kept = _read_part(path)
    if kept is None:
        # Products this small are slower on several threads, on a busy machine by far.
        with threadpool_limits(1, "blas"):
            kept = yield from _named(part.make(data, task), name)
        write_text(path, json.dumps(to_json(kept)) + "\n")
    return kept


def _named(job: Job[dict[str, Measured]], name: str) -> Job[dict[str, Measured]]:
    """Pass a job's events on, with the encoder's name."""
    try:
        while True:
            event = next(job)
            if isinstance(event, Progress):
                event = replace(event, stage=f"{name}: {event.stage}")
            yield event
    except StopIteration as end:
        result: dict[str, Measured] = end.value
        return result
    finally:
        job.close()


def _key(kind: str, data: bytes, task: Task) -> str:
    """Hash everything that a part depends on; 16 hex digits."""
    patches = task.patches
    digest = hashlib.blake2b(digest_size=8)
    # Averages have digests of their own, even where they equal the features.
    context = task.neighbourhood.model_dump()
    # Only the options that this part depends on: others do not invalidate it.
    protocol = task.protocol.model_dump(include=set(PARTS[kind].protocol))
    settings = [
        _VERSION,
        kind,
        task.positive,
        patches.classes,
        patches.group_names,
        protocol,
        context,
    ]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for array in (patches.labels, patches.groups, task.folds, patches.border):
        digest.update(array.tobytes())
    # The features themselves, not their file: extracting again keeps the parts.
    digest.update(data)
    return digest.hexdigest()


def _read_part(path: Path) -> dict[str, Measured] | None:
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing or damaged: it is computed again


def _costs(encoders: Mapping[str, Sets]) -> dict[str, Cost | None]:
    firsts = {name: next(iter(sets.values())) for name, sets in encoders.items()}
    return {
        name: recipe_cost(one.encoder, one.grid.patch_size)
        for name, one in firsts.items()
    }


def _describe_protocol(
    config: EvaluateConfig, encoders: Mapping[str, Sets]
) -> dict[str, object]:
    first = next(iter(next(iter(encoders.values())).values()))
    return {
        **config.protocol.model_dump(),
        "patch_size": first.grid.patch_size,
        "mpp": first.grid.mpp,
        "positive": config.positive,
        "covered": config.covered,
        "centred": config.centred,
        "neighbourhood": config.neighbourhood.model_dump(),
        "encoders": {
            name: next(iter(sets.values())).encoder for name, sets in encoders.items()
        },
        # Slides that count for an encoder although they are in its training set.
        "seen_slides": {name: _seen(sets) for name, sets in encoders.items()},
        "costs": {
            name: None if cost is None else asdict(cost)
            for name, cost in _costs(encoders).items()
        },
    }


def _write(out: Path, result: Evaluation) -> None:
    # matplotlib is slow to import: do it only once there is something to draw.
    from napari_mcm.core.evaluation.figure import draw_evaluation, save_figure

    write_results(out, result)
    save_figure(draw_evaluation(result), out / "evaluation.png")
