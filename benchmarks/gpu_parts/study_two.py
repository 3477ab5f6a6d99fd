"""Study 2 (HER2ST), with as many windows as the time allows."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts.session import SMALL, Session
from benchmarks.studies.prepare import prepare, with_arms

from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.runtime.jobs import Metrics, Progress, run
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import StudyConfig, arm_config
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.training.options import merge_preset

ARMS = ("A", "B", "D", "F-l2", "X", "N")
WINDOWS = 20_000
# Of the time that is left, for head warm-ups, checkpoints, and a slower machine's moods.
SAFETY = 0.75


def small_study(session: Session, slides: Path, out: Path) -> StudyConfig:
    """Make a study of two generated slides that takes seconds."""
    content = with_arms({"seeds": 1}, ("A", "D", "N"))
    base = {
        **SMALL,
        "grid": {"patch_size": 32, "mpp": 1.0},
        "context": {"s": 3, "depth": 1, "heads": 4, "width": 64, "predictor_width": 64},
        "optimiser": {"head_epochs": 1},
        "held_out": {"validation": 0.0},
        "compute": {"device": session.device, "precision": "float32"},
    }
    named = ("slide_00", "slide_01")
    return StudyConfig.model_validate(
        {
            **content,
            "out": str(out),
            "base": merge_preset(content["base"], base),
            "evaluation": {
                "classes": ["Tumour", "Stroma"],
                "protocol": {"few_shot": 2, "draws": 2, "strength": 1.0},
            },
            "slides": [
                {
                    "slide": str(slides / f"{name}.ome.tif"),
                    "labels": str(slides / f"{name}.geojson"),
                }
                for name in named
            ],
        }
    )


def study_config(session: Session) -> StudyConfig:
    """Make study 2 in two halves of its sections, or of the generated cohort."""
    if session.tiny:
        folder = session.work / "verbs" / "cohort"
        if not folder.is_dir():
            run(generate_cohort(folder, SampleConfig(slides=2, size=640)))
        study = small_study(session, folder, session.work / "study")
        arms = {key: with_arms({}, ARMS)[key] for key in ("arms", "against")}
        return StudyConfig.model_validate(study.model_dump() | arms)
    study = prepare("her2st", session.data, session.work)
    base = merge_preset(
        study.base,
        {
            "compute": {
                "device": session.device,
                "precision": "float32",
                "threads": None,
            },
            "workers": session.cores,
            # 64 patches leave a GPU idle; rates follow by the study's own rule.
            "optimiser": {"batch_windows": 16},
        },
    )
    slides = tuple(
        slide.model_copy(update={"fold": f"half{1 + number // 2}"})
        for number, slide in enumerate(study.slides)
    )
    return study.model_copy(update={"base": base, "slides": slides, "seeds": 1})


def measure_rate(session: Session, study: StudyConfig, arm: str) -> tuple[float, int]:
    """Return windows per second of an arm, and windows per placement of its slides."""
    half = study.slides[: max(len(study.slides) // 2, 1)]
    slides = tuple(slide.slide for slide in half)
    config: FinetuneConfig = arm_config(study, arm, 0, slides, session.work / "rate")
    config = config.model_copy(
        update={
            "optimiser": config.optimiser.model_copy(
                update={"placements": 1, "epochs": 1, "head_epochs": 0}
            )
        }
    )
    total, ends = 0, []
    with contextlib.closing(finetune(config)) as job:
        for event in job:
            if isinstance(event, Progress) and event.stage == "Fine-tuning":
                total = event.total or total
            if isinstance(event, Metrics):
                ends.append(time.monotonic())
            if len(ends) > 1 and ends[-1] - ends[0] > 20:
                break
    if len(ends) < 2:
        raise RuntimeError("fewer than two steps: nothing to measure a rate from")
    # The first step warms up.
    steps, seconds = len(ends) - 1, ends[-1] - ends[0]
    return steps * config.optimiser.batch_windows / seconds, total


def run_arms(session: Session) -> dict[str, Any]:
    """Run study 2, with as many windows as the time that is left allows."""
    study = study_config(session)
    trained = [arm for arm in study.arms if study.arms[arm].encoder is None]
    halves = len({slide.fold or slide.slide for slide in study.slides})
    began = time.monotonic()
    run(run_study(study, arms=[a for a in study.arms if a not in trained]))
    per_trial = (time.monotonic() - began) / (halves * (len(study.arms) - len(trained)))
    rate, per_placement = measure_rate(session, study, "F-l2")
    trials = halves * len(trained)
    seconds = max(session.left - per_trial * trials, 0) * SAFETY / trials
    wanted = per_placement if session.tiny else WINDOWS // halves
    windows = min(wanted, int(rate * seconds))
    placements = max(round(windows / max(per_placement, 1)), 1)
    update = {"optimiser": {"placements": placements}}
    study = study.model_copy(update={"base": merge_preset(study.base, update)})
    print(
        f"{rate:.1f} windows/s, {placements} placements of {per_placement}", flush=True
    )
    done = run(run_study(study))
    return {
        "windows_per_s": rate,
        "windows_wanted_per_arm": wanted * halves,
        "windows_per_arm": placements * per_placement * halves,
        "placements": placements,
        "evaluation_seconds_per_trial": per_trial,
        "failed": list(done.failed),
        "table": done.table.read_text(encoding="utf-8"),
    }
