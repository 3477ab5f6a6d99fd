"""Heads: a new one, and one trained on stored features of the finished student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from benchmarks.learned_parts.windows import windows_around

from napari_mcm.core.encoders import load_encoders
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.head_pretraining import HeadPretraining, KeptWindows
from napari_mcm.core.mcm.model import ContextModel
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.runtime.jobs import Note, run

SECTIONS = ("crc_section1", "crc_section2", "crc_section3")
LEARNED, ASKED = SECTIONS[:2], SECTIONS[2]

Sets = dict[str, FeatureSet]


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
