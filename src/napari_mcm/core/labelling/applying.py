"""Classifying the patches of a cohort with a classifier file, as a job.

Each slide's areas are written when it is done, with what they were computed from. The
same command takes them up again, so that a job that was cancelled or killed continues
with the next slide, and slides whose features were replaced are computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_mcm import __version__
from napari_mcm.core.errors import ConfigError, LabelError, McmError, RunError
from napari_mcm.core.features.feature_set import FeatureSet, known_fingerprint
from napari_mcm.core.labelling.areas import ClassArea, total_areas
from napari_mcm.core.labelling.classifier import PatchClassifier
from napari_mcm.core.labelling.classifier_file import (
    ENDING,
    load_classifier,
    save_classifier,
)
from napari_mcm.core.labelling.config import ClassifyPatchesConfig, OutputFormat
from napari_mcm.core.labelling.exports import SlideAreas, write_areas, write_classes
from napari_mcm.core.labelling.feature_files import (
    FoundFile,
    find_feature_files,
    read_any,
    stamp_of,
)
from napari_mcm.core.labelling.slide_classes import classify_slide
from napari_mcm.core.runtime.files import remove_abandoned, write_json
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.runtime.run_verbs import check_run_verb
from napari_mcm.core.runtime.threads import run_in_thread

VERB = "classify patches"

ENDINGS: dict[OutputFormat, str] = {
    "csv": ".classes.csv",
    "geojson": ".classes.geojson",
    "regions": ".classes.regions.geojson",
    "ome-tiff": ".classes.ome.tif",
}
"""What is appended to a slide's name."""

TABLE, SUMMARY, CONFIG, PARTS = "areas.csv", "areas.json", "config.json", "slides"

COPY = f"used{ENDING}"
"""The classifier that was used, with its limit, in the output folder."""


@dataclass(frozen=True, eq=False)
class ClassifyPatchesResult:
    """Areas of the classes of a cohort.

    Attributes
    ----------
    classifier : PatchClassifier
        With the limit that was used.
    slides : tuple of SlideAreas
        In the order of the files.
    total : tuple of ClassArea
        Areas on all slides.
    failed : tuple of str
        One line for each file that could not be used.
    table : Path
        The table of areas.
    files : tuple of Path
        Files of the slides.
    resumed : int
        Number of slides that an earlier run had finished.
    """

    classifier: PatchClassifier
    slides: tuple[SlideAreas, ...]
    total: tuple[ClassArea, ...]
    failed: tuple[str, ...]
    table: Path
    files: tuple[Path, ...]
    resumed: int


def apply_classifier(config: ClassifyPatchesConfig) -> Job[ClassifyPatchesResult]:
    """Classify the patches of a cohort and measure the areas of its classes, as a job.

    Parameters
    ----------
    config : ClassifyPatchesConfig
        Classifier, features and output folder.

    Yields
    ------
    Event
        Progress in slides; notes on files that are skipped.

    Returns
    -------
    ClassifyPatchesResult

    Raises
    ------
    ConfigError
        If an option is missing.
    LabelError
        If the classifier file cannot be used.
    FeatureError
        If features are missing.
    RunError
        If the output folder holds a run of another verb or another classifier.
    McmError
        If no file could be used, or the output cannot be written.
    """
    if config.classifier is None or not config.features or config.out is None:
        raise ConfigError(
            "a classifier, feature files and --out are needed",
            hint="See napari-mcm classify patches --help",
        )
    classifier = load_classifier(config.classifier)
    if config.unsure_below is not None:
        limit = {"unsure_below": config.unsure_below}
        changed = classifier.config.model_copy(update=limit)
        classifier = replace(classifier, config=changed)
    cohort = _Cohort(config, classifier, config.out, digest_of(classifier))
    _open_folder(config, cohort)
    files, skipped = find_feature_files(
        config.features, known_fingerprint(classifier.encoder)
    )
    for line in skipped:
        yield Note(line)
    pending = [file for file in files if not cohort.take_up(file)]
    meter = _meter(files, pending)
    yield meter.progress()
    for file in pending:
        # Reading cannot be stopped, but what was read is not missed.
        line = yield from run_in_thread(
            meter.progress(), cohort.classify, file, abandon=True, stop=cohort.stop
        )
        if line:
            yield Note(line, "warning")
        yield meter.advance(_size(file) if meter.unit == "patches" else 1)
    if cohort.unchecked:
        yield Note(
            f"{cohort.unchecked} files do not state their encoder: make sure that it is "
            "the classifier's",
            "warning",
        )
    return (yield from run_in_thread("Writing the table", cohort.finish, files))


def _meter(files: Sequence[FoundFile], pending: Sequence[FoundFile]) -> Meter:
    """Count patches, or slides where a file does not state its patches."""
    if any(file.patches is None for file in files):
        done = len(files) - len(pending)
        return Meter("Classifying", len(files), "slides", done)
    total = sum(map(_size, files))
    return Meter("Classifying", total, "patches", total - sum(map(_size, pending)))


def _size(file: FoundFile) -> int:
    return file.patches or 0


def digest_of(classifier: PatchClassifier) -> str:
    """Return what shows that results are of this classifier.

    Parameters
    ----------
    classifier : PatchClassifier
        With its limit.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(classifier.weights.tobytes())
    digest.update(classifier.bias.tobytes())
    known = [classifier.names, classifier.temperature, classifier.config.model_dump()]
    digest.update(json.dumps(known, sort_keys=True).encode())
    return digest.hexdigest()


def _open_folder(config: ClassifyPatchesConfig, cohort: _Cohort) -> None:
    """Start a run, or take up one of the same classifier.

    Raises
    ------
    RunError
        If the folder holds another run.
    """
    check_run_verb(cohort.out, VERB)
    copy = cohort.out / COPY
    if copy.exists() and digest_of(load_classifier(copy)) != cohort.digest:
        raise RunError(
            "holds areas of another classifier, or of another --unsure-below",
            cohort.out,
            "Choose another --out",
        )
    for ending in ENDINGS.values():
        remove_abandoned(cohort.out, ending)
    save_classifier(copy, cohort.classifier)
    write_json(cohort.out / CONFIG, config.model_dump(mode="json"))


class _Cohort:
    """The slides of a cohort: what was computed, and what cannot be."""

    def __init__(
        self,
        config: ClassifyPatchesConfig,
        classifier: PatchClassifier,
        out: Path,
        digest: str,
    ) -> None:
        self._config, self.classifier = config, classifier
        self.out, self.digest = out, digest
        self._slides: dict[Path, SlideAreas] = {}
        self._sources: dict[str, Path] = {}
        self._files: dict[Path, Sequence[Path]] = {}
        self._failed: list[str] = []
        self._resumed = self.unchecked = 0
        self._stopped = False

    def stop(self) -> None:
        """Stop writing files."""
        self._stopped = True

    def take_up(self, file: FoundFile) -> bool:
        """Use what an earlier run computed from a file; return whether there is any."""
        part = self._part(file.path)
        with suppress(OSError, ValueError, KeyError, TypeError, McmError):
            known = json.loads(part.read_text(encoding="utf-8"))
            files = [self.out / name for name in known["files"]]
            wanted = [self.out / name for name in self._names(known["name"])]
            same = (
                known["key"] == self._key(file.path)
                and set(wanted) <= set(files)
                and all(one.is_file() for one in wanted)
                and known["fingerprint"] not in self._sources
            )
            if same:
                areas = tuple(_area(one) for one in known["areas"])
                found = SlideAreas(known["slide"], known["fingerprint"], areas)
                self._add(found, file.path, wanted)
                self._resumed += 1
            return same
        return False

    def classify(self, file: FoundFile) -> str:
        """Classify one slide and write its files; return why it cannot be, or ""."""
        try:
            key = self._key(file.path)
            features = read_any(file.path)
            self._check(features, file.path)
            classes = classify_slide(self.classifier, features)
            found = SlideAreas(
                classes.slide, classes.fingerprint, tuple(classes.areas())
            )
            name = self._free_name(classes.slide, classes.fingerprint)
            written = [
                write_classes(classes, self.out / one, lambda: self._stopped)
                for one in self._names(name)
            ]
        # One damaged file must not end the job for a large cohort.
        except McmError as error:
            self._failed.append(f"{file.path.name}: {error}")
            return self._failed[-1]
        write_json(
            self._part(file.path),
            {
                "key": key,
                "name": name,
                "slide": found.slide,
                "fingerprint": found.fingerprint,
                "features": str(file.path),
                "encoder": features.encoder.get("fingerprint"),
                "grid": features.grid.fingerprint,
                "areas": [plain_area(one) for one in found.areas],
                "files": [one.name for one in written],
            },
        )
        self._add(found, file.path, written)
        self.unchecked += not known_fingerprint(features.encoder)
        return ""

    def finish(self, files: Sequence[FoundFile]) -> ClassifyPatchesResult:
        """Write the table and the summary, in the order of the files.

        Raises
        ------
        LabelError
            If no file could be used.
        """
        if not self._slides:
            raise LabelError("no feature file could be used", hint=self._failed[0])
        paths = [one.path for one in files if one.path in self._slides]
        slides = tuple(self._slides[path] for path in paths)
        total = tuple(total_areas(one.areas for one in slides))
        table = write_areas(slides, self.out / TABLE)
        write_json(self.out / SUMMARY, self._summary(slides, total))
        return ClassifyPatchesResult(
            self.classifier,
            slides,
            total,
            tuple(self._failed),
            table,
            tuple(file for path in paths for file in self._files[path]),
            self._resumed,
        )

    def _summary(
        self, slides: Sequence[SlideAreas], total: Sequence[ClassArea]
    ) -> dict[str, Any]:
        classifier = self.classifier
        return {
            "verb": VERB,
            "version": __version__,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "classifier": {
                "file": str(self._config.classifier),
                "digest": self.digest,
                "classes": list(classifier.names),
                "labels": list(classifier.counts),
                "calibrated": classifier.calibrated,
                "config": classifier.config.model_dump(),
                "encoder": dict(classifier.encoder),
                "provenance": dict(classifier.provenance),
            },
            "slides": [
                {
                    "slide": one.slide,
                    "fingerprint": one.fingerprint,
                    "features": str(self._sources[one.fingerprint]),
                    "areas": [plain_area(area) for area in one.areas],
                }
                for one in slides
            ],
            "total": [plain_area(area) for area in total],
            "failed": self._failed,
        }

    def _check(self, features: FeatureSet, path: Path) -> None:
        """Check that a slide was not measured already.

        Raises
        ------
        LabelError
            If it was: its tissue would count twice.
        """
        slide = str(features.grid.slide.get("fingerprint") or "")
        before = self._sources.get(slide)
        if before is not None:
            raise LabelError(
                f"is of the same slide as {before.name}: its tissue counts once",
                hint="Leave one of them out",
            )

    def _add(self, found: SlideAreas, source: Path, files: Sequence[Path]) -> None:
        self._slides[source] = found
        self._sources[found.fingerprint] = source
        self._files[source] = files

    def _names(self, name: str) -> Iterator[str]:
        return (f"{name}{ENDINGS[kind]}" for kind in self._config.write)

    def _free_name(self, slide: str, fingerprint: str) -> str:
        """Return the name of a slide's files; slides of one name differ by a hash."""
        plain = "".join("_" if c in '/\\:*?"<>|' else c for c in slide) or "slide"
        taken = any(one.slide == slide for one in self._slides.values())
        return f"{plain}.{fingerprint[:8]}" if taken else plain

    def _part(self, path: Path) -> Path:
        mark = hashlib.blake2b(str(path.absolute()).encode(), digest_size=4).hexdigest()
        return self.out / PARTS / f"{path.name.split('.')[0]}.{mark}.json"

    def _key(self, path: Path) -> list[Any]:
        """Return what a slide's areas were computed from."""
        return [self.digest, str(path.absolute()), stamp_of(path)]


def plain_area(area: ClassArea) -> dict[str, Any]:
    """Return an area ready for JSON.

    Parameters
    ----------
    area : ClassArea
        The area.

    Returns
    -------
    dict
        Its attributes; a probability that is not known is None.
    """
    known = asdict(area)
    if area.probability != area.probability:
        known["probability"] = None
    return known


def _area(known: dict[str, Any]) -> ClassArea:
    p = known["probability"]
    return ClassArea(**{**known, "probability": float("nan") if p is None else p})
