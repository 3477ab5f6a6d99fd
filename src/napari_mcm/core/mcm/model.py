"""The context model: a Transformer that fills masked places from their surroundings.

It exists during fine-tuning only; afterwards the student stands alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm.config import ContextConfig, TargetConfig


class ContextModel(nn.Module):
    """Transformer encoder and predictor network of masked context modelling.

    Pisula & Bozek, arXiv 2403.05325, figure 2: masked patches' feature vectors are
    replaced by a token; a Transformer sees all places of the window; a predictor maps
    its output at the masked places to the teacher's features.

    Parameters
    ----------
    student_dim, teacher_dim : int
        Lengths of the student's and the teacher's feature vectors.
    config : ContextConfig
        Window, depth, heads and widths.
    """

    positions: Tensor

    def __init__(
        self, student_dim: int, teacher_dim: int, config: ContextConfig
    ) -> None:
        super().__init__()
        width = config.width
        if width % config.heads or width % 4:
            raise ConfigError(
                f"a Transformer {width} wide does not divide into {config.heads} heads "
                "and four position waves",
                hint="Choose --width as a multiple of 4 and of --heads",
            )
        self.project = (
            nn.Identity() if width == student_dim else nn.Linear(student_dim, width)
        )
        self.mask_token = nn.Parameter(torch.empty(width).normal_(0, 0.02))
        self._set_positions(config, width)
        block = nn.TransformerEncoderLayer(
            width,
            config.heads,
            round(width * config.mlp_ratio),
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            block, config.depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.predictor = Predictor(width, config.predictor_width, teacher_dim)

    def _set_positions(self, config: ContextConfig, width: int) -> None:
        fixed = sincos_positions(config.s, width)
        if config.position == "learned":
            self.positions = nn.Parameter(torch.randn_like(fixed) * 0.02)
        else:
            self.register_buffer("positions", fixed, persistent=False)

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the teacher's features at the masked places.

        Parameters
        ----------
        features : Tensor, shape (V, student_dim)
            The student's features of all visible patches of the batch, window by window.
        visible, masked : Tensor of bool, shape (W, n)
            Where they belong, and which places to predict. A place that is neither holds
            no tissue and is attended to by none.

        Returns
        -------
        Tensor, shape (M, teacher_dim)
            Predictions for the masked places, in the same order.
        """
        seen = self.project(features)
        tokens = self.mask_token.to(seen.dtype).expand(*visible.shape, -1)
        tokens = tokens.masked_scatter(visible.unsqueeze(-1), seen)
        tokens = tokens + self.positions.to(seen.dtype)
        tokens = self.transformer(tokens, src_key_padding_mask=~(visible | masked))
        predictions: Tensor = self.predictor(tokens[masked])
        return predictions


class PatchModel(nn.Module):
    """The predictor alone, on each patch's own features: distillation without context.

    Parameters are those of :class:`ContextModel`, of which it takes what it needs.
    """

    def __init__(
        self, student_dim: int, teacher_dim: int, config: ContextConfig
    ) -> None:
        super().__init__()
        self.predictor = Predictor(student_dim, config.predictor_width, teacher_dim)

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the teacher's features of the visible patches (V, teacher_dim)."""
        predictions: Tensor = self.predictor(features)
        return predictions


class Predictor(nn.Sequential):
    """Norm, linear, GELU, linear: from a token to the teacher's features."""

    def __init__(self, width: int, hidden: int, teacher_dim: int) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, teacher_dim),
        )

    @torch.no_grad()
    def begin_at(self, prediction: Tensor) -> None:
        """Let every prediction, while untrained, be this one (teacher_dim,)."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(prediction)


def sincos_positions(s: int, width: int) -> Tensor:
    """Make fixed 2-D sine-cosine position embeddings of an s×s window.

    Half of the width encodes the row, half the column, with wavelengths from 2π to
    10000·2π as in Vaswani et al. (2017), taken to two dimensions as in MAE.

    Returns
    -------
    Tensor, shape (s·s, width)
        Row-major.
    """
    quarter = width // 4
    rates = torch.exp(torch.arange(quarter) * (-math.log(10_000.0) / quarter))
    along = torch.arange(s).unsqueeze(1) * rates
    waves = torch.cat([along.sin(), along.cos()], dim=1)
    rows = waves.repeat_interleave(s, dim=0)
    columns = waves.repeat(s, 1)
    return torch.cat([rows, columns], dim=1)


WHITENED_VARIANCE = 0.95


@dataclass(frozen=True, eq=False)
class Target:
    """How the teacher's features become targets, and how predictions are judged.

    Attributes
    ----------
    config : TargetConfig
        Scaling and loss.
    mean : Tensor or None, shape (teacher_dim,)
        Over patches, for the scalings ``"standardise"`` and ``"whiten"``.
    std : Tensor or None, shape (teacher_dim,)
        For the scaling ``"standardise"``.
    whitening : Tensor or None, shape (teacher_dim, teacher_dim)
        For the scaling ``"whiten"``.
    """

    config: TargetConfig
    mean: Tensor | None = None
    std: Tensor | None = None
    whitening: Tensor | None = None

    def measured(self, features: Tensor) -> Target:
        """Take the statistics that the scaling needs from features (N, teacher_dim)."""
        mean = features.mean(dim=0)
        if self.config.target_norm == "standardise":
            return replace(self, mean=mean, std=features.std(dim=0).clamp_min(1e-6))
        if self.config.target_norm == "whiten":
            return replace(self, mean=mean, whitening=_whitening(features - mean))
        return self

    def statistics(self) -> dict[str, Tensor]:
        """Give the statistics that were taken, by name."""
        named = {"mean": self.mean, "std": self.std, "whitening": self.whitening}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def scale(self, features: Tensor) -> Tensor:
        """Scale the teacher's features (M, teacher_dim).

        A plain l1 is ruled by the few dimensions with the largest spread; a layer norm
        without weights is the usual remedy in feature distillation.
        """
        if self.config.target_norm == "layernorm":
            return F.layer_norm(features, features.shape[-1:])
        if self.config.target_norm == "standardise":
            if self.mean is None or self.std is None:
                raise ValueError("standardised targets need statistics")
            return (features - self.mean) / self.std
        if self.config.target_norm == "whiten":
            if self.mean is None or self.whitening is None:
                raise ValueError("whitened targets need statistics")
            return (features - self.mean) @ self.whitening
        return features

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Sum of the patches' distances; divide by their number for the mean.

        Parameters
        ----------
        predictions, targets : Tensor, shape (M, teacher_dim)
            Of masked patches with tissue, and no others.
        """
        if self.config.loss == "l1":
            # The article's only equation: the mean over dimensions of |ŷ - y|.
            return (predictions - targets).abs().mean(dim=1).sum()
        angle = 1 - F.cosine_similarity(predictions, targets, dim=1)
        smooth = F.smooth_l1_loss(predictions, targets, reduction="none").mean(dim=1)
        return (0.9 * angle + 0.1 * smooth).sum()


def _whitening(centred: Tensor) -> Tensor:
    """Make the matrix that gives equal spread to the directions that matter.

    Those are the principal directions with 95 % of the variance; few patches say nothing
    of the others, which would be noise blown up. Turned back, so that targets keep their
    length, and scaled to unit variance a dimension on average.
    """
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    share = (spread**2).cumsum(0) / (spread**2).sum()
    count = int((share < WHITENED_VARIANCE).sum()) + 1
    basis = directions[:count]
    scale = (len(centred) * centred.shape[1] / count) ** 0.5
    whitening: Tensor = (basis.T / spread[:count]) @ basis * scale
    return whitening
