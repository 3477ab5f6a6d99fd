"""Folds: which slides are for training, for early stopping and for testing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mil.cohort import Case, Cohort
from napari_mcm.core.mil.config import SplitConfig

# Names of the three parts in published tables of splits.
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "tune": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Fold:
    """Slides of one training.

    Attributes
    ----------
    name : str
        ``"0"``, or the name in the table.
    train, validation, test : tuple of str
        Names of the slides; no patient is in two of them.
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def make_folds(cohort: Cohort, config: SplitConfig) -> list[Fold]:
    """Divide a cohort into folds, by its own columns or by patients and classes.

    A ``fold`` column gives the test slides of each fold, a ``split`` column a single
    fold. Without them folds are drawn at random: stratified by class, with all slides
    of a patient in the same part (scikit-learn's StratifiedGroupKFold).

    Parameters
    ----------
    cohort : Cohort
        Labelled slides.
    config : SplitConfig
        Number of folds, validation fraction and random seed.

    Returns
    -------
    list of Fold
        At least one.

    Raises
    ------
    ConfigError
        If a patient is in two parts of a fold, or a class or part has too few slides.
    """
    # A published split comes before folds, and both before a random draw.
    if any(case.split for case in cohort.cases):
        folds = [_given_split(cohort, config)]
    elif any(case.fold for case in cohort.cases):
        folds = _given_folds(cohort, config)
    else:
        folds = _drawn_folds(cohort, config)
    for fold in folds:
        _check_leakage(fold, cohort)
        _check_parts(fold, cohort)
    return folds


def _given_split(cohort: Cohort, config: SplitConfig) -> Fold:
    parts: dict[str, list[Case]] = {"train": [], "validation": [], "test": []}
    for case in cohort.cases:
        if case.split not in _PARTS:
            raise ConfigError(
                f"puts slide {case.slide} into '{case.split or 'no part'}'",
                cohort.source,
                "A split is train, val or test",
            )
        parts[_PARTS[case.split]].append(case)
    for needed in ("train", "test"):
        if not parts[needed]:
            raise ConfigError(f"has no slide in part {needed}", cohort.source)
    _check_given(parts.values(), cohort, "its split")
    train, validation = parts["train"], parts["validation"]
    if not validation:
        train, validation = _hold_out(train, cohort, config, 0)
    return Fold("0", _slides(train), _slides(validation), _slides(parts["test"]))


def _given_folds(cohort: Cohort, config: SplitConfig) -> list[Fold]:
    without = [case.slide for case in cohort.cases if not case.fold]
    if without:
        raise ConfigError(f"has no fold for slide {without[0]}", cohort.source)
    # By length first, so that fold 10 comes after fold 9.
    names = sorted({case.fold for case in cohort.cases}, key=lambda n: (len(n), n))
    if len(names) < 2:
        raise ConfigError("has one fold only", cohort.source)
    tests = [[c for c in cohort.cases if c.fold == name] for name in names]
    _check_given(tests, cohort, "its folds")
    return _around(tests, names, cohort, config)


def _drawn_folds(cohort: Cohort, config: SplitConfig) -> list[Fold]:
    # Each fold tests a patient of each class, or its AUROC is undefined.
    least = min(
        len({c.patient for c in cohort.cases if c.label == label})
        for label in cohort.classes
    )
    if least < config.folds:
        raise ConfigError(
            f"has a class with {least} patient(s), too few for {config.folds} folds",
            cohort.source,
            f"Use --folds {least} or add a split column"
            if least > 1
            else "Each class needs slides of at least two patients",
        )
    tests = _stratified(cohort.cases, config.folds, config.split_seed)
    names = [str(number) for number in range(config.folds)]
    return _around(tests, names, cohort, config)


def _around(
    tests: Sequence[Sequence[Case]],
    names: Sequence[str],
    cohort: Cohort,
    config: SplitConfig,
) -> list[Fold]:
    folds = []
    for number, (name, test) in enumerate(zip(names, tests, strict=True)):
        tested = {case.slide for case in test}
        rest = [case for case in cohort.cases if case.slide not in tested]
        train, validation = _hold_out(rest, cohort, config, number + 1)
        folds.append(Fold(name, _slides(train), _slides(validation), _slides(test)))
    return folds


def _hold_out(
    cases: Sequence[Case], cohort: Cohort, config: SplitConfig, number: int
) -> tuple[list[Case], list[Case]]:
    """Hold out a stratified part of the patients for early stopping."""
    pairs = {(case.label, case.patient) for case in cases}
    counts = Counter(label for label, _ in pairs)
    # A small cohort holds out a larger part, so that each class is in it.
    parts = max(min(round(1 / config.validation), *counts.values()), 2)
    # Every fold holds out other patients; 1009 keeps the seeds of runs apart.
    seed = config.split_seed * 1009 + number
    held = {case.slide for case in _stratified(cases, parts, seed)[0]}
    train = [case for case in cases if case.slide not in held]
    return train, [case for case in cases if case.slide in held]


def _stratified(cases: Sequence[Case], parts: int, seed: int) -> list[list[Case]]:
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([case.label for case in cases])
    patients = np.array([case.patient for case in cases])
    most = max(np.unique(labels, return_counts=True)[1])
    if min(len(set(patients)), most) < parts:
        raise ConfigError(
            f"{len(set(patients))} patient(s) cannot be divided into {parts} parts",
            hint="Use fewer --folds or a greater --validation",
        )
    # scikit-learn accepts seeds of 32 bits.
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # Rare classes are not in every part; _check_parts rejects what matters.
        warnings.simplefilter("ignore", UserWarning)
        split = list(splitter.split(labels, labels, patients))
    return [[cases[int(i)] for i in test] for _, test in split]


def _check_given(groups: Iterable[Sequence[Case]], cohort: Cohort, what: str) -> None:
    where: dict[str, int] = {}
    for number, group in enumerate(groups):
        for case in group:
            if where.setdefault(case.patient, number) != number:
                raise _leak(case.patient, cohort, what)


def _check_leakage(fold: Fold, cohort: Cohort) -> None:
    # Drawn folds are checked, too: a leak raises the metrics and shows nowhere else.
    patients = {case.slide: case.patient for case in cohort.cases}
    where: dict[str, str] = {}
    for part in ("train", "validation", "test"):
        for slide in getattr(fold, part):
            if where.setdefault(patients[slide], part) != part:
                raise _leak(patients[slide], cohort, f"fold {fold.name}")


def _leak(patient: str, cohort: Cohort, what: str) -> ConfigError:
    return ConfigError(
        f"patient {patient} is in two parts of {what} (data leakage)",
        cohort.source,
        "Put all slides of a patient into the same part",
    )


def _check_parts(fold: Fold, cohort: Cohort) -> None:
    labels = {case.slide: case.label for case in cohort.cases}
    trained = {labels[slide] for slide in fold.train}
    missing = [label for label in cohort.classes if label not in trained]
    if missing:
        raise ConfigError(
            f"fold {fold.name} has no training slide of class {missing[0]}",
            cohort.source,
            "Use fewer --folds, or add a split column",
        )
    if not fold.validation or not fold.test:
        raise ConfigError(
            f"fold {fold.name} has too few slides",
            cohort.source,
            "Use fewer --folds",
        )


def _slides(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(case.slide for case in cases)
