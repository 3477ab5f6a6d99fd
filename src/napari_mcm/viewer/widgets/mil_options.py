"""The options of a training of slide classifiers that the *MIL* widget shows."""

from __future__ import annotations

from napari_mcm.core.mil.config import MilConfig, ModelName
from napari_mcm.viewer.widgets.option_form import Labels, OptionForm

MODELS: dict[ModelName, str] = {
    "abmil": "ABMIL (gated attention)",
    "clam_sb": "CLAM, one attention",
    "clam_mb": "CLAM, one a class",
    "transmil": "TransMIL",
    "dsmil": "DSMIL",
    "mean": "Mean of patches",
    "max": "Maximum of patches",
}
MAIN: Labels = (
    ("aggregator.model", "Mo&del"),
    ("split.folds", "F&olds"),
    ("seeds", "&Seeds"),
)
MORE: Labels = (
    ("training.epochs", "Epochs at most"),
    ("training.min_epochs", "Epochs at least"),
    ("training.patience", "Patience (epochs)"),
    ("training.lr", "Learning rate"),
    ("training.max_patches", "Patches of a slide"),
    ("training.patch_dropout", "Patch dropout"),
    ("training.batch_bags", "Slides a step"),
    ("training.seed", "First seed"),
    ("split.split_seed", "Seed of folds"),
    ("figures.resamples", "Bootstrap samples"),
    ("compute.device", "Device"),
    ("compute.precision", "Precision"),
    ("training.balanced", "Draw classes equally often"),
    ("bags.allow_missing", "Leave out slides without features"),
)


def make_form(options: Labels) -> OptionForm:
    """Make a form of some options; all others keep their defaults."""
    return OptionForm(MilConfig, options, {"aggregator.model": MODELS})
