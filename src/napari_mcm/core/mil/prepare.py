"""What is settled before a classifier is trained: slides, folds, features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.jobs import Job, Note
from napari_mcm.core.mil.bags import FeatureFolder, Origin, check_there
from napari_mcm.core.mil.cohort import Cohort, read_cohort
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.splits import Fold, make_folds


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is settled before the first epoch."""

    cohort: Cohort
    folds: list[Fold]
    bags: FeatureFolder
    origin: Origin

    def describe(self) -> dict[str, Any]:
        """Give it ready for JSON: what a resumed run must find again."""
        cases = [
            {"slide": c.slide, "label": c.label, "patient": c.patient, "path": c.path}
            for c in self.cohort.cases
        ]
        return {
            "classes": self.cohort.classes,
            "has_patients": self.cohort.has_patients,
            "cases": cases,
            "folds": [
                {k: list(v) if k != "name" else v for k, v in asdict(fold).items()}
                for fold in self.folds
            ],
            "features": asdict(self.origin),
        }


def prepare(config: MilConfig) -> Job[Prepared]:
    """Read the table, find the features and part the slides.

    Raises
    ------
    ConfigError
        If slides have no features and that was not allowed; a note names each.
    """
    if config.cohort is None:
        raise ConfigError("no cohort given", hint="Name a table of slides (CSV)")
    if config.features is None:
        raise ConfigError("no features given", hint="Name their folder with --features")
    cohort = read_cohort(config.cohort)
    bags = FeatureFolder(config.features, config.bags)
    slides = [case.slide for case in cohort.cases]
    missing = check_there(bags, slides, config.features)
    for slide in missing:
        yield Note(f"slide {slide} has no features in {config.features}", "warning")
    if missing and not config.bags.allow_missing:
        raise ConfigError(
            f"{len(missing)} of {len(slides)} slides have no features",
            config.features,
            "Extract them, or go on without with --allow-missing",
        )
    cohort = cohort.without(missing)
    folds = make_folds(cohort, config.split)
    bags.read(cohort.cases[0].slide)
    assert bags.origin is not None
    yield Note(
        f"{len(cohort.cases)} slides of {len(cohort.classes)} classes in {len(folds)} "
        f"fold(s); features of {bags.origin.dim} dimensions, up to "
        f"{config.bags.cache_gib:g} GiB of them kept in memory"
    )
    return Prepared(cohort, folds, bags, bags.origin)
