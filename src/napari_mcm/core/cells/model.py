"""A trained cell classifier: its encoder for timm, with head and classes beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_mcm import __version__
from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.cells.network import Head
from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder, save_encoder
from napari_mcm.core.encoders.compute import settle_training
from napari_mcm.core.errors import RunError
from napari_mcm.core.mae.config import AugmentConfig
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.runtime.run_verbs import check_run_verb, resume_command

HEAD_FILE = "head.safetensors"


@dataclass(frozen=True, eq=False)
class CellClassifier:
    """Encoder, head and classes of a trained classifier.

    Attributes
    ----------
    encoder : Encoder
        Encodes images.
    head : Head
        Linear layer on the features.
    classes : tuple of str
        Names of the classes.
    image_size : int
        Side of the input images, in pixels, for encoders that accept any size.
    """

    encoder: Encoder
    head: Head
    classes: tuple[str, ...]
    image_size: int = 224

    @property
    def side(self) -> int:
        """Return the side of the input images.

        Returns
        -------
        int
            In pixels.
        """
        return self.encoder.input_size or self.image_size

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the class probabilities of images.

        Parameters
        ----------
        images : ndarray of uint8, shape (N, side, side, 3)
            RGB images.

        Returns
        -------
        ndarray of float32, shape (N, C)
            Rows sum to 1.
        """
        # Batch norm and dropout must not depend on the images classified together.
        self.encoder.module.eval()
        features = torch.from_numpy(self.encoder.encode(images))
        device = self.head.linear.weight.device
        with torch.inference_mode():
            logits = self.head.eval()(features.to(device))
        return np.asarray(logits.softmax(dim=1).cpu().numpy())


def save_classifier(
    run_dir: Path,
    classifier: CellClassifier,
    config: ClassifyConfig,
    augmenting: AugmentConfig,
    summary: Mapping[str, Any],
) -> None:
    """Write a classifier as ``encoder/`` and ``head.safetensors``.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.
    classifier : CellClassifier
        As trained.
    config : ClassifyConfig
        Options of the run.
    augmenting : AugmentConfig
        Augmentation in effect.
    summary : mapping
        Figures of the run.
    """
    head = {k: t.detach().cpu() for k, t in classifier.head.state_dict().items()}
    # In the header of the weights: a head without its classes is of no use.
    about = {"classes": json.dumps(classifier.classes), "side": str(classifier.side)}
    with atomic_path(run_dir / HEAD_FILE) as part:
        save_file(head, part, metadata=about)
    encoder = classifier.encoder
    recipe = {
        **encoder.recipe,
        "classifier": {
            "init": config.init,
            "classes": list(classifier.classes),
            "fit": config.fit.model_dump(mode="json"),
            "augment": augmenting.model_dump(mode="json"),
            "summary": dict(summary),
            "version": __version__,
        },
    }
    encoder.module.eval()
    save_encoder(
        run_dir / "encoder", encoder.module, recipe, _card(run_dir, config, summary)
    )


def load_classifier(
    run_dir: Path, compute: ComputeConfig | None = None
) -> CellClassifier:
    """Load a classifier from its run.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.
    compute : ComputeConfig, optional
        Where to compute.

    Returns
    -------
    CellClassifier
        Ready to classify.

    Raises
    ------
    RunError
        If the run is of another kind, not finished, or damaged.
    WeightsError
        If its encoder is missing or damaged.
    """
    file = run_dir / HEAD_FILE
    if not file.is_file():
        check_run_verb(run_dir, "classify train")
        command = resume_command(run_dir)
        raise RunError(
            f"holds no trained classifier ({HEAD_FILE})",
            run_dir,
            f"Finish it with: {command}" if command else "",
        )
    # The precision of training: probabilities then agree with the run's own scores.
    encoder = load_encoder(run_dir, settle_training(compute or ComputeConfig()))
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
            classes = tuple(str(name) for name in json.loads(about["classes"]))
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        head = Head(encoder.dim, len(classes))
        head.load_state_dict(state)
        side = int(about["side"])
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"is damaged ({reason})", file, "Train it again") from error
    return CellClassifier(encoder, head.to(encoder.device), classes, side)


def _card(run_dir: Path, config: ClassifyConfig, summary: Mapping[str, Any]) -> str:
    support = ", ".join(f"{name} {n}" for name, n in summary["support"].items())
    return f"""---
library_name: timm
tags: [histopathology, image-classification, napari-mcm]
---

# {run_dir.name}: a classifier's encoder

Trained in napari-mcm {__version__} from `{config.init}` ({config.fit.learn}, \
{summary["steps"]} steps of {config.fit.batch_size} images) on {support}. The head is
beside it in `{HEAD_FILE}`. Not for clinical use.
"""
