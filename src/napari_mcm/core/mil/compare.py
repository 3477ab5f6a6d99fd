"""Comparison of encoders by the same slide classifier on the same folds, as a job.

Every encoder's features train the same aggregator with the same folds and seeds.
Metrics m are computed on the pooled test slides, and differences to the first encoder
are paired: each bootstrap sample b draws the same slides (or patients) for both::

    Δ_b = m(encoder, slides_b) - m(reference, slides_b)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_mcm.core.errors import ConfigError, RunError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.mil.bags import FeatureFolder, check_there, covered
from napari_mcm.core.mil.cohort import Cohort, read_cohort
from napari_mcm.core.mil.config import CompareConfig, MilConfig
from napari_mcm.core.mil.metrics import (
    MAIN,
    Floats,
    Predictions,
    bootstrap,
    main_scores,
)
from napari_mcm.core.mil.resampled_scores import Counts, ResampledScores
from napari_mcm.core.mil.results import (
    MilResult,
    plain,
    read_predictions,
    result_of,
)
from napari_mcm.core.mil.train import resume_train, train
from napari_mcm.core.runtime.files import atomic_path, write_json, write_text
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.run_verbs import resume_command, verb_of_run
from napari_mcm.core.training.run import Run


@dataclass(frozen=True)
class CompareResult:
    """Result of a comparison.

    Attributes
    ----------
    out : Path
        Holds one run per encoder, ``compare.json`` and ``compare.png``.
    figures : dict of str to dict
        Metrics of each encoder; the first is the reference.
    differences : dict of str to dict
        For each other encoder, its metrics minus those of the reference, with their paired
        95 % intervals ``by_slide`` and ``by_patient``.
    neighbourhoods : dict of str to NeighbourhoodConfig
        What the feature vectors of each encoder or run cover.
    """

    out: Path
    figures: dict[str, dict[str, Any]]
    differences: dict[str, dict[str, Any]]
    neighbourhoods: dict[str, NeighbourhoodConfig]


def compare(config: CompareConfig) -> Job[CompareResult]:
    """Train the same classifier on the features of several encoders, as a job.

    Folds, seeds and bootstrap samples are the same for all, so that differences are
    paired. An interrupted comparison resumes when it is started again. Finished runs of
    :func:`.train` on the same slides and folds are compared as they are, which compares
    neighbourhoods or models too.

    Parameters
    ----------
    config : CompareConfig
        Cohort, folders of features, output directory, and the classifier's options.

    Yields
    ------
    Event
        Progress and notes of all trainings.

    Returns
    -------
    CompareResult
        Metrics of each encoder, and paired differences.

    Raises
    ------
    ConfigError
        If an option is missing, slides lack features and that is not allowed, or features
        cover different neighbourhoods.
    RunError
        If a run in the output directory was made with other options, or a run to compare
        is not finished or was tested on other slides.
    """
    if config.out is None:
        raise ConfigError("no directory given", hint="Choose one with --out")
    names = folder_names(config.features)
    if any(verb_of_run(folder) == "mil train" for folder in config.features):
        results = _finished_runs(config, names)
    else:
        results = yield from _trained(config, names)
    found = {name: read_predictions(result.run_dir) for name, result in results.items()}
    differences = {}
    for name in names[1:]:
        pair = found[names[0]], found[name]
        differences[name] = yield from _difference(*pair, name, config)
    figures = {name: result.figures for name, result in results.items()}
    contexts = {name: result.neighbourhood for name, result in results.items()}
    content = {
        "reference": names[0],
        "figures": figures,
        "differences": differences,
        "neighbourhoods": {
            name: known.model_dump() for name, known in contexts.items()
        },
    }
    write_json(config.out / "compare.json", content)
    with atomic_path(config.out / "compare.png") as part:
        draw_comparison(figures).savefig(part, dpi=150)
    return CompareResult(config.out, figures, differences, contexts)


def _trained(config: CompareConfig, names: Sequence[str]) -> Job[dict[str, MilResult]]:
    """Train one run per encoder, or resume it."""
    assert config.out is not None
    # Missing slides of one encoder are left out for all: the folds must be the same.
    table = yield from _common_table(config)
    _check_contexts(config, table)
    results: dict[str, MilResult] = {}
    for name, features in zip(names, config.features, strict=True):
        yield Note(f"{name}: features of {features}")
        results[name] = yield from _one(config, table, features, config.out / name)
    return results


def _finished_runs(config: CompareConfig, names: Sequence[str]) -> dict[str, MilResult]:
    """Read finished runs, for example of the same features over several radii.

    Raises
    ------
    ConfigError
        If options of a training are given.
    RunError
        If a folder is no finished run.
    """
    given = config.model_fields_set - {"features", "out", "figures"}
    if given:
        raise ConfigError(
            "compares finished runs, which have their own options",
            "mil compare",
            f"Leave out {', '.join(sorted(given))}",
        )
    found: dict[str, MilResult] = {}
    for name, folder in zip(names, config.features, strict=True):
        run = Run.open(folder, "mil train")
        summary = run.summary()
        if summary is None:
            command = f"Resume it with: {resume_command(folder)}"
            raise RunError("is not finished", folder, command)
        found[name] = result_of(run, summary)
    return found


def _check_contexts(config: CompareConfig, table: Path) -> None:
    """Check that no folder holds averages where another holds single patches.

    Raises
    ------
    ConfigError
        If features cover different neighbourhoods.
    """
    slide = read_cohort(table).cases[0].slide
    known: dict[Path, NeighbourhoodConfig] = {}
    for folder in config.features:
        bags = FeatureFolder(folder, config.bags, config.neighbourhood)
        bags.read(slide)
        assert bags.origin is not None
        known[folder] = bags.origin.neighbourhood
    first, *others = known
    for folder in others:
        if known[folder] != known[first]:
            raise ConfigError(
                f"has features over {covered(known[folder])}, {first} those over "
                f"{covered(known[first])}",
                folder,
                "Train a run on each with mil train, and compare the runs",
            )


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by as few of their last parts as make the names unique.

    Parameters
    ----------
    folders : sequence of Path
        Two or more different folders.

    Returns
    -------
    list of str
        One name per folder.

    Raises
    ------
    ConfigError
        If there are fewer than two, or the same twice.
    """
    # Names are folders of the output: two spellings of one folder would collide.
    whole = [Path(folder).resolve() for folder in folders]
    if len(set(whole)) < 2 or len(set(whole)) < len(whole):
        raise ConfigError("name two or more different folders of features to compare")
    for count in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["_".join(path.parts[-count:]).strip("/") for path in whole]
        if len(set(names)) == len(names):
            break
    return names


def _common_table(config: CompareConfig) -> Job[Path]:
    """Write the table of the slides that all encoders have features of.

    Raises
    ------
    ConfigError
        If no cohort is given, or slides lack features and that is not allowed.
    """
    if config.cohort is None:
        raise ConfigError("no cohort given", hint="Name a table with --cohort")
    assert config.out is not None
    cohort = read_cohort(config.cohort)
    slides = [case.slide for case in cohort.cases]
    missing: dict[str, Path] = {}
    for folder in config.features:
        for slide in check_there(FeatureFolder(folder, config.bags), slides, folder):
            missing.setdefault(slide, folder)
    for slide, folder in missing.items():
        yield Note(f"slide {slide} has no features in {folder}", "warning")
    if missing and not config.bags.allow_missing:
        raise ConfigError(
            f"{len(missing)} of {len(slides)} slides lack features of some encoder",
            hint="Extract them, or leave these slides out with --allow-missing",
        )
    path = config.out / "cohort.csv"
    write_text(path, _as_table(cohort.without(list(missing))))
    return path


def _as_table(cohort: Cohort) -> str:
    text = io.StringIO()
    names = ["slide", "label", "patient", "split", "fold", "path"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for case in cohort.cases:
        # Paths are relative to the table, and this table lies in another folder.
        path = (cohort.source.parent / case.path).resolve() if case.path else ""
        row = {name: getattr(case, name) for name in names}
        writer.writerow(row | {"path": str(path)})
    return text.getvalue()


def _one(
    config: CompareConfig, table: Path, features: Path, out: Path
) -> Job[MilResult]:
    shared = config.model_dump(exclude={"features", "cohort", "out"})
    one = MilConfig(**shared, cohort=table, features=features, out=out)
    if not (out / "config.json").exists():
        return (yield from train(one))
    existing = Run.open(out, "mil train").options(MilConfig)
    if existing.model_copy(update={"out": out}) != one:
        raise RunError(
            "holds a run with other options", out, "Choose another --out, or remove it"
        )
    return (yield from resume_train(out))


def _difference(
    reference: Predictions, other: Predictions, name: str, config: CompareConfig
) -> Job[dict[str, Any]]:
    """Compare an encoder with the reference on the same slides.

    Raises
    ------
    RunError
        If the two were tested on other slides.
    """
    # Pairing needs the same slides in the same order.
    if reference.slides != other.slides or reference.classes != other.classes:
        raise RunError(f"{name} was tested on other slides or folds", config.out)
    if not np.array_equal(reference.labels, other.labels):
        raise RunError(f"{name} was tested with other labels", config.out)
    bins, resamples = config.figures.bins, config.figures.resamples

    labels = reference.labels
    both = [ResampledScores(labels, p.probabilities, bins) for p in (other, reference)]

    def difference(counts: Counts) -> dict[str, Floats]:
        one, two = (scores(counts) for scores in both)
        return {measure: one[measure] - two[measure] for measure in MAIN}

    one, two = (main_scores(labels, p.probabilities, bins) for p in (other, reference))
    found: dict[str, Any] = {name: one[name] - two[name] for name in MAIN}
    for kind, units in (
        ("by_slide", reference.slides),
        ("by_patient", reference.patients),
    ):
        stage = f"{name}: intervals {kind.replace('_', ' ')}"
        found[kind] = yield from bootstrap(difference, units, resamples, stage)
    whole: dict[str, Any] = plain(found)
    return whole


def draw_comparison(figures: dict[str, dict[str, Any]]) -> Figure:
    """Draw each encoder's pooled AUROC with its interval by patient.

    Parameters
    ----------
    figures : dict of str to dict
        Metrics by encoder, as in :class:`CompareResult`.

    Returns
    -------
    matplotlib.figure.Figure
        One row per encoder.
    """
    figure = Figure(figsize=(5.2, 0.9 + 0.42 * len(figures)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    for row, found in enumerate(figures.values()):
        low, high = found["by_patient"]["auroc"]
        # JSON has None where no bootstrap sample defines the metric.
        if low is not None:
            ax.plot([low, high], [row, row], color="#0072B2", linewidth=2)
        ax.plot(found["pooled"]["auroc"], row, "o", color="#0072B2")
    ax.set_yticks(range(len(figures)), list(figures), fontsize=8)
    # The reference, which is named first, is on top.
    ax.invert_yaxis()
    ax.axvline(0.5, color="#707070", linestyle=":", linewidth=1)
    ax.set_xlabel("AUROC, pooled over folds (95 % interval by patient)", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
