"""TransMIL: patches attend to each other through Nyström attention with landmarks.

L tokens attend through m landmarks q_m, k_m, which are means over stretches of tokens
(Xiong et al., "Nyströmformer", AAAI 2021); A^+ is the iterated pseudo-inverse::

    out = softmax(q k_m^T / √d) · softmax(q_m k_m^T / √d)^+ · softmax(q_m k^T / √d) · v

References
----------
Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning for Whole
Slide Image Classification", NeurIPS 2021.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_mcm.core.mil.models.base import Aggregated, Aggregator, Dropout

HEADS, RESIDUAL_KERNEL, PINV_ITERATIONS = 8, 33, 6
MANY_TOKENS = 20_000
"""Number of tokens above which training recomputes attention to save memory."""


class NystromAttention(nn.Module):
    """Self-attention of L tokens through m landmarks, never L × L nor even L × m.

    Xiong et al., "Nyströmformer", AAAI 2021. Landmarks are means over equal stretches
    of tokens and the inverse is iterated; a convolution over the values along the
    tokens is added. The number of tokens need not be a multiple of that of landmarks:
    stretches then differ by one token, where the authors' code pads with zeros that are
    attended to.

    Parameters
    ----------
    width, heads : int
        Length of a token; number of heads that share it.
    landmarks : int
        Number of landmarks; as many as tokens if those are fewer.
    dropout : float
        Dropout on the result.
    """

    def __init__(self, width: int, heads: int, landmarks: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.landmarks = heads, landmarks
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        # Depth-wise along the tokens: each head has one kernel for all its channels.
        self.residual = nn.Conv2d(
            heads,
            heads,
            (RESIDUAL_KERNEL, 1),
            padding=(RESIDUAL_KERNEL // 2, 0),
            groups=heads,
            bias=False,
        )

    def forward(self, tokens: Tensor, first: int | None = None) -> Tensor:
        """Attend among tokens.

        Parameters
        ----------
        tokens : Tensor, shape (1, L, width)
            Tokens of one bag.
        first : int, optional
            Compute the result of this many first tokens only; by default of all.

        Returns
        -------
        Tensor, shape (1, L, width) or (1, first, width)
            Mixed tokens.
        """
        # Recomputed, queries, keys and values do not wait in memory for the gradient.
        if torch.is_grad_enabled() and tokens.shape[1] > MANY_TOKENS:
            mixed = checkpoint(
                self._mix, tokens, first, use_reentrant=False, preserve_rng_state=False
            )
        else:
            mixed = self._mix(tokens, first)
        # Outside the checkpoint: recomputation must not draw other values.
        dropped: Tensor = self.dropout(mixed)
        return dropped

    def _mix(self, tokens: Tensor, first: int | None) -> Tensor:
        query, key, value = self._split(tokens)  # (1, heads, L, d) each
        marks = self._landmarks(query), self._landmarks(key)  # (1, heads, m, d) each
        inverse = pseudo_inverse(_softmax(*marks))  # (1, heads, m, m)
        # PyTorch computes both products with the long side block by block.
        # (1, heads, m, d): each landmark's mean of the values.
        gathered = F.scaled_dot_product_attention(marks[0], key, value)
        # The last layer needs the class token only, not the rows of all others.
        wanted = query[:, :, :first]  # (1, heads, first, d)
        out = F.scaled_dot_product_attention(wanted, marks[1], inverse @ gathered)
        # The convolution reaches half a kernel beyond the last token that is wanted.
        seen = None if first is None else first + RESIDUAL_KERNEL // 2
        out = out + self.residual(value[:, :, :seen])[:, :, :first]
        mixed: Tensor = self.to_out(out.transpose(1, 2).flatten(2))  # (1, first, width)
        return mixed

    def of_class_token(self, tokens: Tensor) -> Tensor:
        """Return the first token's attention to each token, the mean over heads.

        Parameters
        ----------
        tokens : Tensor, shape (1, L, width)
            Tokens of one bag; the first is the class token.

        Returns
        -------
        Tensor, shape (L,)
            An approximation that sums to about 1; some values may be negative.
        """
        query, key, _ = self._split(tokens)
        marks = self._landmarks(query), self._landmarks(key)
        inverse = pseudo_inverse(_softmax(*marks))
        row = _softmax(query[:, :, :1], marks[1]) @ inverse  # (1, heads, 1, m)
        rows = [
            # One head at a time: only one m × L matrix is in memory.
            row[:, head] @ _softmax(marks[0][:, head], key[:, head])
            for head in range(self.heads)
        ]
        return torch.stack(rows).mean(dim=0)[0, 0]

    def _split(self, tokens: Tensor) -> list[Tensor]:
        # (1, L, 3 width) -> three of (1, heads, L, d), with d = width / heads.
        size = (*tokens.shape[:2], self.heads, -1)
        parts = self.to_qkv(tokens).chunk(3, dim=-1)
        return [part.view(size).transpose(1, 2) for part in parts]

    def _landmarks(self, values: Tensor) -> Tensor:
        """Average values (1, heads, L, d) over stretches of tokens to (1, heads, m, d)."""
        tokens = values.shape[2]
        count = min(self.landmarks, tokens)
        if tokens % count == 0:
            stretches: Tensor = values.unflatten(2, (count, tokens // count))
            return stretches.mean(dim=3)
        # Token i belongs to landmark i·m // L: stretches differ by one token at most.
        stretch = torch.arange(tokens, device=values.device) * count // tokens  # (L,)
        sums = values.new_zeros((*values.shape[:2], count, values.shape[3]))
        sums = sums.index_add(2, stretch, values)
        sizes = torch.bincount(stretch, minlength=count).to(values.dtype)
        means: Tensor = sums / sizes[:, None]
        return means


class PositionEncoding(nn.Module):
    """Encode positions by depth-wise convolutions over the squared tokens (PPEG).

    Kernels of 7, 5 and 3 and the identity are added up.

    Parameters
    ----------
    width : int
        Length of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seven = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.five = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.three = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """Encode the positions of all tokens but the class token.

        Parameters
        ----------
        tokens : Tensor, shape (1, 1 + side · side, width)
            The class token, then the square of tokens in row-major order.
        side : int
            Tokens per side of the square.

        Returns
        -------
        Tensor, shape (1, 1 + side · side, width)
            The class token unchanged, then the encoded tokens.
        """
        first, rest = tokens[:, :1], tokens[:, 1:]
        square = rest.transpose(1, 2).unflatten(2, (side, side))  # (1, width, s, s)
        kernel, bias = self._merged()
        encoded = F.conv2d(square, kernel, bias, padding=3, groups=kernel.shape[0])
        return torch.cat([first, encoded.flatten(2).transpose(1, 2)], dim=1)

    def _merged(self) -> tuple[Tensor, Tensor]:
        """Sum the kernels and the identity to one kernel, at a third of the memory."""
        kernel = F.pad(self.seven.weight, [0] * 4)  # (width, 1, 7, 7)
        kernel = kernel + F.pad(self.five.weight, [1] * 4)
        kernel = kernel + F.pad(self.three.weight, [2] * 4)
        one = torch.zeros_like(kernel)
        # The identity is a kernel that is 1 in the middle.
        one[:, :, 3, 3] = 1
        biases = [part.bias for part in (self.seven, self.five, self.three)]
        return kernel + one, torch.stack([b for b in biases if b is not None]).sum(0)


class TransMIL(Aggregator):
    """Transformer-based MIL (Shao et al., NeurIPS 2021), multi-class.

    ``Linear(D, width)``, ReLU; tokens squared by repeating the first ones; a class
    token; Nyström attention; PPEG; Nyström attention; ``LayerNorm``; ``Linear(width,
    C)`` of the class token.

    The result depends on the order of the patches. Bags of a batch are computed one by
    one, each without its padding.

    Parameters
    ----------
    dim, classes : int
        Length D of a feature vector; number C of classes.
    width : int
        Length of a token, a multiple of 8.
    landmarks : int
        Landmarks of the attention.
    dropout : float
        Dropout after each attention.
    """

    shown: ClassVar[str] = "attention of the class token"
    caveat: ClassVar[str] = (
        "TransMIL: the class token's attention in the last layer, where each patch has "
        "been mixed with others; negative values of the approximation are shown as 0"
    )

    def __init__(
        self, dim: int, classes: int, width: int, landmarks: int, dropout: float
    ) -> None:
        super().__init__()
        # Fewer heads where 8 do not divide the width.
        heads = math.gcd(HEADS, width)
        self.project = nn.Linear(dim, width)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.layers = nn.ModuleList(
            NystromAttention(width, heads, landmarks, dropout) for _ in range(2)
        )
        self.position = PositionEncoding(width)
        self.classify = nn.Linear(width, classes)

    def aggregate(
        self, bag: Tensor, mask: Tensor | None = None, with_attention: bool = False
    ) -> Aggregated:
        """Score bags one by one.

        Parameters
        ----------
        bag : Tensor, shape (B, N, D)
            Features of patches; shorter bags of a batch are padded.
        mask : Tensor of bool, shape (B, N), optional
            False for padding.
        with_attention : bool, optional
            Whether attention is needed, if it costs extra.

        Returns
        -------
        Aggregated
            Logits, attention, and the input of the auxiliary loss.
        """
        found = []
        for number, features in enumerate(bag):
            # Padding would become landmarks and places in the square.
            own = features if mask is None else features[mask[number]]
            found.append(self._one(own, with_attention))
        logits = torch.stack([scores for scores, _ in found])
        if not with_attention:
            return Aggregated(logits)
        # float32 also where the model computes in mixed precision.
        attention = bag.new_zeros(bag.shape[:2], dtype=torch.float32)
        for number, (_, weights) in enumerate(found):
            own = slice(None) if mask is None else mask[number]
            attention[number, own] = weights.float()
        return Aggregated(logits, attention)

    def _one(self, features: Tensor, with_attention: bool) -> tuple[Tensor, Tensor]:
        """Score one bag (N, D): logits (C,) and attention (N,), empty if not requested."""
        count = len(features)
        # PPEG needs a square; the authors fill it up with the first tokens again.
        side = math.ceil(math.sqrt(count))
        tokens = F.relu(self.project(features), inplace=True)  # (N, width)
        repeated = torch.cat([tokens, tokens[: side * side - count]])  # (side², width)
        tokens = torch.cat([self.class_token, repeated[None]], dim=1)  # (1, L, width)
        # Attention with a residual and no feed-forward layer, as in the authors' code.
        tokens = tokens + self.layers[0](self.norms[0](tokens))
        tokens = self.position(tokens, side)
        inner = self.norms[1](tokens)
        attention = features.new_zeros(0)
        if with_attention:
            attention = self._attention(inner, count)
        last = tokens[:, 0] + self.layers[1](inner, first=1)[:, 0]  # (1, width)
        return self.classify(self.norms[2](last))[0], attention

    def _attention(self, inner: Tensor, count: int) -> Tensor:
        """Return the patches' part of the class token's attention; repeats are summed."""
        last = self.layers[1]
        assert isinstance(last, NystromAttention)
        row = last.of_class_token(inner)[1:]
        weights = row[:count].clone()
        # A repeated token is the same patch: its attention belongs to that patch.
        weights[: len(row) - count] += row[count:]
        weights = weights.clamp_min(0)
        total = weights.sum()
        # Where the approximation leaves nothing positive, attention is uniform.
        return torch.where(total > 0, weights / total, 1 / count)


def pseudo_inverse(matrix: Tensor, iterations: int = PINV_ITERATIONS) -> Tensor:
    """Approximate the Moore-Penrose inverse of matrices.

    Razavi et al.'s iteration of third order, as in Nyströmformer, equation 11.

    Parameters
    ----------
    matrix : Tensor, shape (..., m, m)
        Matrices, for example of a softmax.
    iterations : int, optional
        Number of iterations.

    Returns
    -------
    Tensor, shape (..., m, m)
        Approximate inverses.
    """
    # The iteration converges from Aᵀ / (‖A‖₁ ‖A‖_∞), per matrix and head.
    size = matrix.abs().sum(dim=-1).amax(dim=-1) * matrix.abs().sum(dim=-2).amax(dim=-1)
    inverse = matrix.transpose(-1, -2) / size[..., None, None]
    one = torch.eye(matrix.shape[-1], device=matrix.device, dtype=matrix.dtype)
    for _ in range(iterations):
        product = matrix @ inverse
        inner = 15 * one - product @ (7 * one - product)
        inverse = 0.25 * inverse @ (13 * one - product @ inner)
    return inverse


def _softmax(queries: Tensor, keys: Tensor) -> Tensor:
    scaled = queries / math.sqrt(queries.shape[-1])
    return (scaled @ keys.transpose(-1, -2)).softmax(dim=-1)
