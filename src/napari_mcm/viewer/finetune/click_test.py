"""The click test of a finished fine-tuning: its student before and after, on two sections.

Random patches of one section are looked for in the next one of the same block. No labels
are needed. The engine writes tables, registration and features into a folder of the run,
so that a cancelled test resumes, and an earlier result is shown with its run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides.paths import slide_name
from napari_mcm.viewer.app.features import encoder_label
from napari_mcm.viewer.app.imports import LEARNING, import_modules
from napari_mcm.viewer.app.out_of_memory import PATCHES, explain_out_of_memory
from napari_mcm.viewer.app.settings import preferences
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.training.slide_picker import ChosenSlides, open_slides

if TYPE_CHECKING:
    from napari_mcm.core.evaluation.config import EvaluateConfig
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.finetune.run import FinetuneRun

FOLDER = "click_test"
"""Folder of the tests in a run folder, which holds one folder for each two sections."""

_MODULES = (*LEARNING, "timm", "napari_mcm.core.evaluation.serial_evaluation")


@dataclass(frozen=True)
class Recalls:
    """How many clicks find their own place, over one neighbourhood.

    Attributes
    ----------
    context : str
        What features cover: ``"patch"``, ``"3 × 3"``.
    before, after : float
        Recall@1 within 2 patch widths, of the student and of the fine-tuned one.
    difference, low, high : float
        After minus before, paired by query, and its 95 % interval; the ends are NaN
        where there is one square of tissue only.
    """

    context: str
    before: float
    after: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ClickResult:
    """The click test of a run, as its folder holds it.

    Attributes
    ----------
    sections : tuple of str
        Names of the section that is asked, and of the one that is searched.
    queries, squares : int
        Number of clicks, and of the squares of tissue that intervals are taken over.
    chance : float
        Recall that a random order reaches.
    recalls : tuple of Recalls
        The patch alone first.
    error_um : float or None
        Median error of the registration; None where it could not be measured.
    warning : str
        One line where a section is in the training set; else empty.
    """

    sections: tuple[str, str]
    queries: int
    squares: int
    chance: float
    recalls: tuple[Recalls, ...]
    error_um: float | None
    warning: str = ""

    def sentence(self) -> str:
        """Return the result in one line."""
        parts = []
        for one in self.recalls:
            context = "" if one.context == "patch" else f"with context {one.context}: "
            parts.append(
                f"{context}before {_short(one.before)}, after {_short(one.after)}"
            )
        return (
            f"A click finds its own place in the next section ({self.queries:,} clicks): "
            f"{'; '.join(parts)}; by chance {_short(self.chance, 3)}"
        )

    def details(self) -> str:
        """Return differences with intervals, sections and registration in one line."""
        gains = ", ".join(
            f"{one.context} {_signed(one.difference)} "
            f"[{_signed(one.low)}, {_signed(one.high)}]"
            for one in self.recalls
        )
        error = "not measured" if self.error_um is None else f"{self.error_um:.0f} µm"
        return (
            f"After minus before, 95 % over {self.squares} squares of tissue: {gains}. "
            f"{self.sections[0]} asked in {self.sections[1]}, median registration error "
            f"{error}."
        )


def read_click_result(folder: Path, record: Mapping[str, Any]) -> ClickResult | None:
    """Read the newest click test of a run; None where there is none.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    record : mapping
        The recipe's entry of the slides in the training set; empty for runs of earlier
        versions, whose slides are then looked up.
    """
    try:
        files = (folder / FOLDER).glob("*/serial.json")
        newest = max(files, key=lambda file: file.stat().st_mtime_ns)
        content = json.loads(newest.read_text(encoding="utf-8"))
        registration = content["registration"]
        sections = registration["first"], registration["second"]
        rows = [row for row in content["rows"] if row["measure"] == _measure()]
        before, after = dict.fromkeys(row["encoder"] for row in rows)
        by_encoder = {
            name: [row for row in rows if row["encoder"] == name]
            for name in (before, after)
        }
        recalls = [
            _recalls(*pair)
            for pair in zip(by_encoder[before], by_encoder[after], strict=True)
        ]
        return ClickResult(
            (str(sections[0]["name"]), str(sections[1]["name"])),
            int(content["queries"]),
            int(content["squares"]),
            float(rows[0]["chance"]),
            tuple(recalls),
            registration["residual"]["median_um"],
            _warning(folder, record, sections),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _measure() -> str:
    # Here, because SciPy's statistics take long to import.
    from napari_mcm.core.evaluation.serial_result import RECALLS

    return next(iter(RECALLS))


def _recalls(before: Mapping[str, Any], after: Mapping[str, Any]) -> Recalls:
    # What is not a number in a table is null in JSON.
    low, high = (
        float("nan") if after[end] is None else float(after[end])
        for end in ("difference_low", "difference_high")
    )
    context = str(after["context"]).removesuffix(" patches")
    values = float(before["value"]), float(after["value"]), float(after["difference"])
    return Recalls(context, *values, low, high)


def _warning(
    folder: Path, record: Mapping[str, Any], sections: Sequence[Mapping[str, Any]]
) -> str:
    from napari_mcm.core.encoders.learned_from import warn_of_seen

    known = record or {"fine_tuning": {}, "spec": str(folder)}
    return warn_of_seen(known, sections, folder.name)


def choose_sections(session: Session, paths: Sequence[Path]) -> ChosenSlides:
    """Return two sections with what the viewer knows about those that are open.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    paths : sequence of Path
        Files of the sections, open or not.

    Raises
    ------
    ValueError
        With one line, if they cannot be used together.
    """
    if len(set(paths)) < 2:
        raise ValueError("Choose two different sections")
    layers = [
        layer
        for layer in session.layers.slides()
        if (slide := SlideMetadata.of_layer(layer)) and Path(slide.path) in paths
    ]
    if not layers:
        return ChosenSlides(tuple(paths))
    known = open_slides(session, layers)
    if len(layers) < 2 and known.read.mpp_override is not None:
        raise ValueError(
            "Open both sections: the resolution that you entered is for one"
        )
    tissue, masks = known.tissue, known.tissue.masks
    if masks is not None and masks.is_file():
        # A single file would be used for both sections.
        tissue = tissue.model_copy(update={"masks": masks.parent})
    return ChosenSlides(tuple(paths), known.read, tissue)


def section_folder(session: Session, paths: Sequence[Path]) -> str:
    """Return the name of the folder for the test of two sections.

    Features of other slides, or of other patches after a mask was drawn, need another one.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    paths : sequence of Path
        Files of the sections.
    """
    state = hashlib.blake2b(repr([str(path) for path in paths]).encode(), digest_size=4)
    for layer in session.layers.slides():
        slide = SlideMetadata.of_layer(layer)
        if slide is None or Path(slide.path) not in paths:
            continue
        if slide.mpp_override is not None:
            state.update(repr((slide.path, slide.mpp_override)).encode())
        if (drawn := session.tissue.drawn_mask(layer)) is not None:
            state.update(np.packbits(drawn.mask).tobytes())
    return "-".join([*(slide_name(path) for path in paths), state.hexdigest()])


def click_config(
    run: FinetuneRun, sections: ChosenSlides, folder: str
) -> EvaluateConfig:
    """Return the options of the click test of a run.

    Parameters
    ----------
    run : FinetuneRun
        A finished run. Patches, tissue and colours are those of its training.
    sections : ChosenSlides
        The section that is asked, and the one that is searched.
    folder : str
        Name of the folder for their test.

    Raises
    ------
    ValueError
        If tables could not tell the student from the run, as they have one name.
    """
    from napari_mcm.core.evaluation.config import EvaluateConfig
    from napari_mcm.core.features.feature_set import NeighbourhoodConfig
    from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS

    if encoder_label(run.student) == run.path.name:
        raise ValueError(
            f"Run and student are both named {run.path.name}: rename the run's folder"
        )
    own, read = {"masks": sections.tissue.masks}, sections.read.mpp_override
    return EvaluateConfig(
        serial=True,
        slides=sections.paths,
        encoder=(run.student, str(run.path)),
        out=run.path / FOLDER / folder,
        grid=run.grid,
        read=run.read.model_copy(update={"mpp_override": read}),
        tissue=run.tissue.model_copy(update=own),
        neighbourhood=NeighbourhoodConfig(radius=DEFAULT_RADIUS),
        # Encoders are compared in one precision, whatever the preferences say.
        compute=preferences().compute.model_copy(update={"precision": "float32"}),
    )


def run_click_test(
    config: EvaluateConfig, run: FinetuneRun, ready: Callable[[], None]
) -> Job[ClickResult | None]:
    """Run the click test, and return the result that it has written.

    Parameters
    ----------
    config : EvaluateConfig
        All options.
    run : FinetuneRun
        The run.
    ready : callable
        Waits until drawn masks are written.
    """
    module = yield from import_modules(_MODULES)
    yield from run_in_thread("Saving the mask", ready)
    with explain_out_of_memory(PATCHES, config, config.out):
        yield from module.evaluate_serial(config)
    return read_click_result(run.path, run.learned_from)


def _short(value: float, digits: int = 2) -> str:
    """Return a fraction without its leading zero, as in the tables of the docs."""
    return f"{value:.{digits}f}".removeprefix("0")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("0.", ".", 1)
