"""Context model of MCM-KD: a Transformer that predicts masked patches from visible ones.

A window's n = s² places become tokens: the student's features x_i, projected to the
Transformer's width, where a patch is visible, and a learned mask token m where it is masked.
Position embeddings p are added, a Transformer encoder mixes the tokens of one window, and a
predictor maps its output at the masked places M to the teacher's features y::

    z_i = W x_i + p_i  (visible),   z_i = m + p_i  (masked)
    ŷ_M = predictor(Transformer(z))_M
    L   = 1 / |M| · Σ_{i in M} mean_d |ŷ_id - scale(y_i)_d|

The model exists during fine-tuning only; afterwards the student stands alone.

References
----------
Pisula and Bozek, arXiv 2403.05325 (2024), figure 2.
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
    """Predict masked patches by a Transformer encoder and a predictor network.

    Pisula and Bozek, arXiv 2403.05325, figure 2. Masking happens after the student: the pixels
    of masked patches never reach it.

    Parameters
    ----------
    student_dim, teacher_dim : int
        Lengths of the student's and the teacher's feature vectors.
    config : ContextConfig
        Window, depth, heads and widths.

    Attributes
    ----------
    positions : Tensor, shape (n, width)
        Position embeddings, n = s·s; a buffer, or a parameter where they are learned.

    Raises
    ------
    ConfigError
        If the width is not a multiple of 4 and of the number of heads.
    """

    positions: Tensor

    def __init__(
        self, student_dim: int, teacher_dim: int, config: ContextConfig
    ) -> None:
        super().__init__()
        width = config.width
        # Rows and columns have sines and cosines each: a quarter of the width for each wave.
        if width % config.heads or width % 4:
            raise ConfigError(
                f"a Transformer of width {width} does not divide into {config.heads} "
                "heads and four position waves",
                hint="Choose --width as a multiple of 4 and of --heads",
            )
        self.project = (
            nn.Identity() if width == student_dim else nn.Linear(student_dim, width)
        )
        # (width,): one token for all masked places; only its position says which one it is.
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
        # PyTorch has nested tensors for post-norm blocks only, and warns without False.
        self.transformer = nn.TransformerEncoder(
            block, config.depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.predictor = Predictor(width, config.predictor_width, teacher_dim)

    def _set_positions(self, config: ContextConfig, width: int) -> None:
        fixed = sincos_positions(config.s, width)  # (n, width)
        if config.position == "learned":
            # Never zero: all masked tokens of a window would start as the same vector.
            self.positions = nn.Parameter(torch.randn_like(fixed) * 0.02)
        else:
            # Not in checkpoints: the configuration determines them.
            self.register_buffer("positions", fixed, persistent=False)

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the teacher's features at the masked places.

        Parameters
        ----------
        features : Tensor, shape (V, student_dim)
            The student's features of all visible patches of the batch, window by window.
        visible, masked : Tensor of bool, shape (W, n)
            Places of those patches, and places to predict, for each of the W windows. A place
            that is neither holds no tissue, and no token attends to it.

        Returns
        -------
        Tensor, shape (M, teacher_dim)
            Predictions for the M masked places, in the same order.
        """
        seen = self.project(features)  # (V, width)
        # Under autocast the projection is bfloat16, but parameters stay float32.
        tokens = self.mask_token.to(seen.dtype).expand(*visible.shape, -1)
        # Row-major order of both sides puts each feature into its own place.
        tokens = tokens.masked_scatter(visible.unsqueeze(-1), seen)  # (W, n, width)
        tokens = tokens + self.positions.to(seen.dtype)  # (W, n, width)
        # Places without tissue are padding: no token attends to them.
        tokens = self.transformer(tokens, src_key_padding_mask=~(visible | masked))
        # Visible places only carry context: the loss is over masked places.
        predictions: Tensor = self.predictor(tokens[masked])  # (M, teacher_dim)
        return predictions


class PatchModel(nn.Module):
    """Predict each patch from its own features: distillation without context.

    The control for :class:`ContextModel`, with the same interface and no Transformer.

    Parameters
    ----------
    student_dim, teacher_dim : int
        Lengths of the student's and the teacher's feature vectors.
    config : ContextConfig
        Only ``predictor_width`` is used.
    """

    def __init__(
        self, student_dim: int, teacher_dim: int, config: ContextConfig
    ) -> None:
        super().__init__()
        self.predictor = Predictor(student_dim, config.predictor_width, teacher_dim)

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the teacher's features of the visible patches.

        Parameters
        ----------
        features : Tensor, shape (V, student_dim)
            The student's features of all visible patches.
        visible, masked : Tensor of bool, shape (W, n)
            Unused; they keep the interface of :class:`ContextModel`.

        Returns
        -------
        Tensor, shape (V, teacher_dim)
            Predictions for the same patches.
        """
        predictions: Tensor = self.predictor(features)  # (V, teacher_dim)
        return predictions


class Predictor(nn.Sequential):
    """Map tokens to the teacher's features: layer norm, linear, GELU, linear.

    Parameters
    ----------
    width : int
        Length of the tokens.
    hidden : int
        Hidden width.
    teacher_dim : int
        Length of the teacher's feature vectors.
    """

    def __init__(self, width: int, hidden: int, teacher_dim: int) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, teacher_dim),
        )

    @torch.no_grad()
    def begin_at(self, prediction: Tensor) -> None:
        """Set the last layer so that every prediction is this vector until training starts.

        Parameters
        ----------
        prediction : Tensor, shape (teacher_dim,)
            For example the median of the targets.
        """
        last = self[-1]
        assert isinstance(last, nn.Linear)
        # With zero weights, tokens have no effect until the first step moves them.
        last.weight.zero_()
        last.bias.copy_(prediction)


def sincos_positions(s: int, width: int) -> Tensor:
    """Compute fixed 2-D sine-cosine position embeddings of an s × s window.

    Half of the width encodes the row and half the column, with wavelengths from 2π to
    10000·2π as in Vaswani et al. (2017), extended to two dimensions as in MAE
    (He et al., 2022).

    Parameters
    ----------
    s : int
        Patches per side of the window.
    width : int
        Length of an embedding, a multiple of 4.

    Returns
    -------
    Tensor, shape (s·s, width)
        One embedding per place, in row-major order.
    """
    quarter = width // 4
    rates = torch.exp(torch.arange(quarter) * (-math.log(10_000.0) / quarter))
    along = torch.arange(s).unsqueeze(1) * rates  # (s, width/4)
    waves = torch.cat([along.sin(), along.cos()], dim=1)  # (s, width/2)
    rows = waves.repeat_interleave(s, dim=0)  # (s·s, width/2): 0 0 0 1 1 1 ...
    columns = waves.repeat(s, 1)  # (s·s, width/2): 0 1 2 0 1 2 ...
    return torch.cat([rows, columns], dim=1)


# Fraction of the variance whose directions are whitened; see `_whitening`.
WHITENED_VARIANCE = 0.95


@dataclass(frozen=True, eq=False)
class Target:
    """Scaling of the teacher's features to targets, and the loss of predictions.

    Attributes
    ----------
    config : TargetConfig
        Scaling and loss.
    mean : Tensor or None, shape (teacher_dim,)
        Mean over patches, for the scalings ``"standardise"`` and ``"whiten"``.
    std : Tensor or None, shape (teacher_dim,)
        Standard deviation over patches, for the scaling ``"standardise"``.
    whitening : Tensor or None, shape (teacher_dim, teacher_dim)
        For the scaling ``"whiten"``.
    constant : Tensor or None, shape (teacher_dim,)
        The vector that predicts the targets of those patches best.
    """

    config: TargetConfig
    mean: Tensor | None = None
    std: Tensor | None = None
    whitening: Tensor | None = None
    constant: Tensor | None = None

    def measured(self, features: Tensor) -> Target:
        """Return a copy with the statistics that the scaling needs, and the best constant.

        Parameters
        ----------
        features : Tensor, shape (N, teacher_dim)
            The teacher's features of some patches.

        Returns
        -------
        Target
            The copy.
        """
        mean, ready = features.mean(dim=0), self  # (teacher_dim,)
        if self.config.target_norm == "standardise":
            # A dimension that is constant over these patches must not divide by 0.
            std = features.std(dim=0).clamp_min(1e-6)
            ready = replace(self, mean=mean, std=std)
        if self.config.target_norm == "whiten":
            ready = replace(self, mean=mean, whitening=_whitening(features - mean))
        return replace(ready, constant=ready.best_constant(ready.scale(features)))

    def statistics(self) -> dict[str, Tensor]:
        """Return the statistics that were measured, by name.

        Returns
        -------
        dict of str to Tensor
            Any of ``mean``, ``std``, ``whitening`` and ``constant``.
        """
        names = ("mean", "std", "whitening", "constant")
        named = {name: getattr(self, name) for name in names}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def scale(self, features: Tensor) -> Tensor:
        """Scale the teacher's features to targets.

        Unscaled, the l1 loss is dominated by the few dimensions with the largest
        spread. A layer norm without weights is the usual remedy in feature distillation
        (Wei et al., "Contrastive learning rivals masked image modeling in fine-tuning
        via feature distillation", 2022).

        Parameters
        ----------
        features : Tensor, shape (M, teacher_dim)
            The teacher's features.

        Returns
        -------
        Tensor, shape (M, teacher_dim)
            Targets.

        Raises
        ------
        ValueError
            If the scaling needs statistics that were not measured.
        """
        if self.config.target_norm == "layernorm":
            # Each vector on its own: no statistics that a checkpoint would have to hold.
            return F.layer_norm(features, features.shape[-1:])
        if self.config.target_norm == "standardise":
            if self.mean is None or self.std is None:
                raise ValueError("standardised targets need statistics: call measured")
            return (features - self.mean) / self.std  # (M, teacher_dim)
        if self.config.target_norm == "whiten":
            if self.mean is None or self.whitening is None:
                raise ValueError("whitened targets need statistics: call measured")
            return (features - self.mean) @ self.whitening  # (M, teacher_dim)
        return features

    def best_constant(self, targets: Tensor) -> Tensor:
        """Return the one vector that predicts all targets best.

        Parameters
        ----------
        targets : Tensor, shape (M, teacher_dim)
            Scaled targets.

        Returns
        -------
        Tensor, shape (teacher_dim,)
            The mean, which minimises l2; the median, which minimises l1, otherwise.
        """
        if self.config.loss == "l2":
            return targets.mean(dim=0)
        median: Tensor = targets.median(dim=0).values
        return median

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the patches' losses; divide by their number for the mean.

        l1 is a median's loss and l2 a mean's: what context tells about a masked patch is
        mostly a probability, which moves the mean and hardly the median.

        Parameters
        ----------
        predictions, targets : Tensor, shape (M, teacher_dim)
            Predictions and scaled targets of masked patches with tissue, and no others.

        Returns
        -------
        Tensor, shape ()
            Sum over the M patches.
        """
        if self.config.loss == "l1":
            # The article's only equation: the mean over dimensions of |ŷ - y|.
            return (predictions - targets).abs().mean(dim=1).sum()
        if self.config.loss == "l2":
            return (predictions - targets).square().mean(dim=1).sum()
        # GPFM's loss on patch tokens (Ma et al., arXiv 2407.18449), with its weights.
        angle = 1 - F.cosine_similarity(predictions, targets, dim=1)  # (M,)
        smooth = F.smooth_l1_loss(predictions, targets, reduction="none").mean(dim=1)
        return (0.9 * angle + 0.1 * smooth).sum()


def _whitening(centred: Tensor) -> Tensor:
    """Compute the matrix that gives equal spread to the directions that matter.

    Those are the principal directions with 95 % of the variance: from few patches the
    others are noise, which whitening would amplify. The result is rotated back and
    scaled to unit variance per dimension on average, so that targets keep their length.
    """
    # centred (N, D) -> spread (k,), directions (k, D), with k = min(N, D).
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    share = (spread**2).cumsum(0) / (spread**2).sum()
    count = int((share < WHITENED_VARIANCE).sum()) + 1
    basis = directions[:count]
    # A singular value is √N times the spread along its direction.
    scale = (len(centred) * centred.shape[1] / count) ** 0.5
    whitening: Tensor = (basis.T / spread[:count]) @ basis * scale
    return whitening
