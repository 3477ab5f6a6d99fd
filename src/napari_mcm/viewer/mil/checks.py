"""What would stop a training of slide classifiers, found before it starts.

The engine checks the same and more when it starts; here the reasons are in the words of the
form, and nothing is imported that takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_mcm.core.mil.cohort import Cohort, read_cohort

_NAMED = 3
"""Slides that a message names."""


@dataclass(frozen=True)
class CohortCheck:
    """What a table of slides holds, and why it cannot be trained on.

    Attributes
    ----------
    summary : str
        Numbers of slides, patients and labels.
    problem : str
        One line; empty where nothing is wrong.
    """

    summary: str
    problem: str = ""

    @property
    def text(self) -> str:
        """Summary and problem, as text for the form."""
        return f"{self.summary}\n{self.problem}" if self.problem else self.summary


def check_cohort(
    table: Path, features: Path | None, folds: int, allow_missing: bool
) -> CohortCheck:
    """Check that slides, labels and features are enough to train on.

    Parameters
    ----------
    table : Path
        Table of slides.
    features : Path or None
        Folder of feature files; None where it is not chosen yet.
    folds : int
        Folds to divide the patients into.
    allow_missing : bool
        Whether slides without features are skipped.

    Returns
    -------
    CohortCheck
        With the first problem.

    Raises
    ------
    McmError
        If the table, or the folder, cannot be read.
    """
    cohort = read_cohort(table)
    summary, problem = describe(cohort), ""
    if features is not None:
        missing = _without_features(cohort, features)
        if missing and (not allow_missing or len(missing) == len(cohort.cases)):
            problem = _missing(missing, len(cohort.cases))
        cohort = cohort.without(missing if allow_missing else ())
    return CohortCheck(summary, problem or label_problem(cohort, folds))


def describe(cohort: Cohort) -> str:
    """Summarize a cohort: ``60 slides of 58 patients: 30 a, 30 b.``.

    Parameters
    ----------
    cohort : Cohort
        Labelled slides.
    """
    labels = [case.label for case in cohort.cases]
    parts = ", ".join(f"{labels.count(name)} {name}" for name in cohort.classes)
    patients = len({case.patient for case in cohort.cases})
    whose = f" of {patients:,} patients" if cohort.has_patients else ""
    return f"{len(labels):,} slides{whose}: {parts}."


def label_problem(cohort: Cohort, folds: int) -> str:
    """Say why a cohort cannot be divided into folds; empty where it can.

    Parameters
    ----------
    cohort : Cohort
        Labelled slides.
    folds : int
        Folds to divide the patients into, where the table does not say.
    """
    if not cohort.cases:
        return "No slide is left to train on."
    if len(cohort.classes) < 2:
        return (
            f"All slides have the label {cohort.classes[0]}: a classifier needs slides "
            "of two labels or more."
        )
    if any(case.split or case.fold for case in cohort.cases):
        return _column_problem(cohort)
    what = "patients" if cohort.has_patients else "slides"
    patients = {
        label: len({c.patient for c in cohort.cases if c.label == label})
        for label in cohort.classes
    }
    rarest = min(patients, key=lambda label: patients[label])
    count = patients[rarest]
    if count < 2:
        return (
            f"Label {rarest} has one {what[:-1]} only: each label needs two {what} or "
            "more, to train on one and to test on another."
        )
    if count < folds:
        return (
            f"Label {rarest} has {count} {what}, too few for {folds} folds: set Folds to "
            f"{count} or less, or add slides of {rarest}."
        )
    return ""


def _column_problem(cohort: Cohort) -> str:
    """Say what is wrong with the parts that the table itself gives."""
    parts: dict[str, set[str]] = {}
    for case in cohort.cases:
        parts.setdefault(case.patient, set()).add(case.split or case.fold)
    for patient, found in parts.items():
        if len(found) > 1:
            return (
                f"Patient {patient} is in {' and '.join(sorted(found))}: put all slides of "
                "a patient into one part, or the test would see patients of the training."
            )
    return ""


def _without_features(cohort: Cohort, features: Path) -> list[str]:
    from napari_mcm.core.mil.bags import FeatureFolder

    folder = FeatureFolder(features)
    return [case.slide for case in cohort.cases if case.slide not in folder]


def _missing(missing: Sequence[str], slides: int) -> str:
    named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
    if len(missing) == slides:
        return (
            f"None of the slides has features here ({named}): feature files must be named "
            "like the slides of the table."
        )
    has = "slide has" if len(missing) == 1 else "slides have"
    return (
        f"{len(missing)} {has} no features ({named}): extract them, or tick Skip slides "
        "without features."
    )
