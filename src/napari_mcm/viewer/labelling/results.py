"""What is taken home: rows of the results table, files, a layer, and all slides at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.core.labelling import UNSURE
from napari_mcm.core.labelling.applying import (
    COPY,
    VERB,
    ClassifyPatchesResult,
    apply_classifier,
)
from napari_mcm.core.labelling.classifier_file import save_classifier
from napari_mcm.core.labelling.config import ClassifyPatchesConfig
from napari_mcm.core.labelling.exports import SlideAreas, write_areas, write_classes
from napari_mcm.core.labelling.slide_classes import SlideClasses
from napari_mcm.core.project import ResultRow
from napari_mcm.core.runtime.command import Command
from napari_mcm.viewer.labelling.class_maps import UNSURE_COLOUR
from napari_mcm.viewer.labelling.slide_files import feature_files
from napari_mcm.viewer.layers.label_frames import rgba
from napari_mcm.viewer.layers.metadata import on_slide
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.results import results_of
from napari_mcm.viewer.project.state import saved_features

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_mcm.core.labelling import PatchClassifier
    from napari_mcm.core.runtime.jobs import Job
    from napari_mcm.viewer.labelling.context import LabellingContext

NO_MAP = "There is no map of classes yet: label patches of two classes"


class ClassResults:
    """Writes and measures the classes of the current slide, and of all slides.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.
    """

    def __init__(self, context: LabellingContext) -> None:
        self._context, self._session = context, context.session

    @property
    def classes(self) -> SlideClasses | None:
        """The classes of the current slide; None where there are none."""
        found = self._context.classifier.classes
        return None if found is None else found.classes

    @property
    def classifier(self) -> PatchClassifier | None:
        """The classifier of the newest map; None without one."""
        fit = self._context.classifier.fit
        return None if fit is None else fit.classifier

    def add_rows(self) -> None:
        """Add the areas of all classes to the results table, the unsure part apart."""
        found, classifier = self._context.classifier.classes, self.classifier
        if found is None or classifier is None:
            self._session.report_error(NO_MAP)
            return
        # It saves the rows, whether or not its dock was ever open.
        project_of(self._session)
        table, now = results_of(self._session), datetime.now(UTC)
        before = len(table.rows)
        for area in found.areas:
            row = ResultRow(
                slide=found.classes.slide,
                fingerprint=found.classes.fingerprint,
                query=f"class {area.label}",
                encoder=found.loaded.label,
                context=classifier.config.neighbourhood.describe(),
                threshold=classifier.config.unsure_below,
                area_mm2=area.mm2,
                tissue_percent=100 * area.share,
                patches=area.patches,
                added=now.isoformat(timespec="seconds"),
            )
            table.add(row)
        count = len(table.rows) - before
        self._context.labels.say(
            f"{count} row{'' if count == 1 else 's'} added to the results table"
            if count
            else "Nothing added: the table has these rows"
        )

    def export(self, path: Path, form: str = "") -> None:
        """Write the classes of the current slide in the background.

        Parameters
        ----------
        path : Path
            The file; its ending sets the format, see
            :func:`~napari_mcm.core.labelling.exports.write_classes`.
        form : str
            Ending of another format.
        """
        classes = self.classes
        if classes is None:
            self._session.report_error(NO_MAP)
        else:
            self._write(path, partial(write_classes, classes, path, form=form))

    def export_areas(self, path: Path) -> None:
        """Write the table of areas of the current slide in the background."""
        found = self._context.classifier.classes
        if found is None:
            self._session.report_error(NO_MAP)
            return
        classes = found.classes
        areas = SlideAreas(classes.slide, classes.fingerprint, tuple(found.areas))
        self._write(path, partial(write_areas, [areas], path))

    def make_layer(self) -> Labels | None:
        """Add the classes of the current slide as a labels layer of napari.

        Label k is the class k of the classifier, the last one is unsure; 0 is what has
        no features.
        """
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        classes, slide = self.classes, self._session.slide
        if classes is None or slide is None:
            self._session.report_error(NO_MAP)
            return None
        names, grid = (*classes.names, "unsure"), classes.grid
        codes = np.where(classes.decided == UNSURE, len(classes.names), classes.decided)
        raster = np.zeros(grid.shape, np.uint8)
        shown = classes.shown
        raster[tuple(grid.lattice[shown].T)] = codes[shown] + 1
        colours = [rgba(one) for one in (*classes.colors, UNSURE_COLOUR)]
        painted = dict(enumerate(colours, 1)) | {0: (0, 0, 0, 0), None: (0, 0, 0, 0)}
        layer = Labels(
            raster,
            name=f"class labels: {slide.name}",
            colormap=DirectLabelColormap(color_dict=painted),
            opacity=0.5,
            features={
                "index": list(range(len(names) + 1)),
                "class": ["no features", *names],
            },
            **on_slide(slide, "class labels", grid.origin, grid.patch_size_level0),
        )
        layers = self._session.layers
        return layers.add(layer, over=layers.top_of(slide))

    def save_classifier(self, path: Path, said: str = "") -> None:
        """Write the classifier, with the origin of its labels, in the background.

        Parameters
        ----------
        path : Path
            The file.
        said : str
            What to say afterwards; by default where it was written.
        """
        fit = self._context.classifier.fit
        if fit is None or fit.classifier is None:
            self._session.report_error(NO_MAP)
        else:
            self._write(path, partial(save_classifier, path, fit.with_origin()), said)

    def features(self) -> tuple[Path, ...]:
        """Return the feature files of all slides of the project, by this encoder.

        The current slide's comes first, and files that do not exist are left out.
        """
        loaded = self._context.classifier.loaded
        if loaded is None:
            return ()
        project = project_of(self._session)
        files = feature_files(
            project.project, project.path, saved_features(loaded).encoder
        )
        own = str(loaded.index.features.grid.slide.get("fingerprint") or "")
        found = dict.fromkeys([files.get(own, loaded.path), *files.values()])
        return tuple(path for path in found if path.exists())

    def config(self, out: Path) -> ClassifyPatchesConfig:
        """Return the options of the command that classifies all slides.

        Parameters
        ----------
        out : Path
            Folder of the table, in which the classifier is kept, too.
        """
        return ClassifyPatchesConfig(
            classifier=out / COPY, features=self.features(), out=out
        )

    def command(self, out: Path) -> str:
        """Return the command line that does the same as :meth:`apply`."""
        return Command(VERB, self.config(out), "classifier features").line

    def apply(self, out: Path, then: Callable[[ClassifyPatchesResult], None]) -> None:
        """Classify all slides of the project as a job, and write the table of areas.

        Parameters
        ----------
        out : Path
            Folder for the table and the classifier.
        then : callable
            Called with the areas of all slides.
        """
        fit, config = self._context.classifier.fit, self.config(out)
        if fit is None or fit.classifier is None:
            self._session.report_error(NO_MAP)
            return
        if not config.features:
            self._session.report_error(
                "No slide of the project has a feature file of this encoder: compute "
                "features in the dock Features"
            )
            return
        classifier = fit.with_origin()

        def job() -> Job[ClassifyPatchesResult]:
            save_classifier(out / COPY, classifier)
            return apply_classifier(config)

        self._session.jobs.start("Classify all slides", job, then)

    def _write(self, path: Path, work: Callable[[], object], said: str = "") -> None:
        self._session.disk.submit(
            f"export {path}",
            work,
            lambda _: self._context.labels.say(said or f"Written to {path}"),
            self._session.report_error,
        )
