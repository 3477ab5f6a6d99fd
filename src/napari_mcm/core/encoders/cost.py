"""What an encoder costs: its parameters, and its multiply-adds per patch.

For other modules: ``parameters(encoder) -> int`` and ``multiply_adds(encoder) -> int``;
``measure_cost(encoder, patch_size)`` gives both with the side that they are for, and
``stated_cost`` reads them, without torch, from a recipe or a feature file.

Counted are the products of convolutions, linear layers and attention, by torch's own
counter on a copy of the model that has shapes but no numbers. Norms, activations and
sums are not, as usual; nor is what a GPU does beside them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_mcm.core.encoders.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from napari_mcm.core.encoders.encoder import Encoder

RECIPE_KEY = "cost"
"""Entry of a recipe, and of the encoder in a feature file, that holds a `Cost`."""
_USUAL_SIDE = 224


@dataclass(frozen=True)
class Cost:
    """What the features of one patch cost.

    Attributes
    ----------
    parameters : int
        Weights of the encoder, without classifier.
    multiply_adds : int
        Multiply-adds per patch.
    side : int
        Side in pixels of the input that they are counted for.
    """

    parameters: int
    multiply_adds: int
    side: int

    def describe(self) -> str:
        """Return the cost in words.

        Returns
        -------
        str
            For example ``3.4 M parameters, 0.38 G multiply-adds per patch of 224 px``.
        """
        return (
            f"{millions(self.parameters)} parameters, {billions(self.multiply_adds)} "
            f"multiply-adds per patch of {self.side} px"
        )

    def record(self) -> dict[str, dict[str, int]]:
        """Return the entry for a recipe.

        Returns
        -------
        dict
            The one key `RECIPE_KEY`, with JSON types.
        """
        return {RECIPE_KEY: asdict(self)}


def millions(count: int) -> str:
    """Return a number of parameters in millions, with two digits that count.

    Parameters
    ----------
    count : int
        Number of parameters.

    Returns
    -------
    str
        For example ``3.4 M``.
    """
    return f"{_short(count / 1e6)} M"


def billions(count: int) -> str:
    """Return a number of multiply-adds in billions, with two digits that count.

    Parameters
    ----------
    count : int
        Number of multiply-adds.

    Returns
    -------
    str
        For example ``0.38 G``.
    """
    return f"{_short(count / 1e9)} G"


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def parameters(encoder: Encoder) -> int:
    """Count the parameters of an encoder.

    Parameters
    ----------
    encoder : Encoder
        In any precision.

    Returns
    -------
    int
        Without those of a classifier, which an encoder does not have.
    """
    return sum(parameter.numel() for parameter in encoder.module.parameters())


def multiply_adds(encoder: Encoder, patch_size: int | None = None) -> int:
    """Count the multiply-adds of an encoder for one patch.

    Parameters
    ----------
    encoder : Encoder
        In any precision.
    patch_size : int, optional
        Side of patches in pixels; by default that of the fine-tuning, else 224. It does
        not count where the encoder resizes patches to its own input size.

    Returns
    -------
    int
        Multiply-adds, which are half of what is called FLOPs.
    """
    return measure_cost(encoder, patch_size).multiply_adds


def measure_cost(encoder: Encoder, patch_size: int | None = None) -> Cost:
    """Count parameters and multiply-adds of an encoder.

    Parameters
    ----------
    encoder : Encoder
        In any precision.
    patch_size : int, optional
        As :func:`multiply_adds` takes it.

    Returns
    -------
    Cost
        For the side that its input really has.
    """
    side = encoder.input_size or recipe_side(encoder.recipe, patch_size)
    return module_cost(encoder.module, side)


def module_cost(module: nn.Module, side: int) -> Cost:
    """Count parameters and multiply-adds of a model.

    Parameters
    ----------
    module : nn.Module
        Takes images of shape (1, 3, side, side).
    side : int
        Side of the image in pixels.

    Returns
    -------
    Cost
        Of the whole model.
    """
    count = sum(parameter.numel() for parameter in module.parameters())
    return Cost(count, count_multiply_adds(module, side), side)


def recipe_cost(
    recipe: Mapping[str, Any], patch_size: int | None = None
) -> Cost | None:
    """Return the cost of an encoder of which only the recipe is at hand.

    Parameters
    ----------
    recipe : mapping
        As :meth:`Encoder.describe` returns it, from any source.
    patch_size : int, optional
        As :func:`multiply_adds` takes it.

    Returns
    -------
    Cost or None
        What the recipe states; where it states none for this side, counted on a model
        without weights, for which torch is imported. None for an unknown model.
    """
    side = recipe_side(recipe, patch_size)
    stated = stated_cost(recipe)
    if stated is not None and stated.side == side:
        return stated
    try:
        # A recipe may come from any file: only a checked one reaches timm.
        checked = Recipe.model_validate(dict(recipe))
    except ValidationError:
        return None
    import timm
    import torch

    if not timm.is_model(checked.architecture):
        return None
    arguments: dict[str, Any] = dict(checked.model_args)
    try:
        with torch.device("meta"):
            module = timm.create_model(checked.architecture, num_classes=0, **arguments)
        return module_cost(module, side)
    # Its arguments reach constructors of any kind, and no result depends on the cost.
    except Exception:  # noqa: BLE001
        return None


def recipe_side(recipe: Mapping[str, Any], patch_size: int | None = None) -> int:
    """Return the side of the input that an encoder gets.

    Parameters
    ----------
    recipe : mapping
        As :meth:`Encoder.describe` returns it.
    patch_size : int, optional
        Side of patches in pixels; by default that of the fine-tuning, else 224.

    Returns
    -------
    int
        The encoder's own input size where it resizes patches.
    """
    try:
        own = recipe.get("preprocessing", {}).get("input_size")
        tuned = recipe.get("fine_tuning", {}).get("patch_size")
        return int(own or patch_size or tuned or _USUAL_SIDE)
    except (AttributeError, TypeError, ValueError):
        return patch_size or _USUAL_SIDE


def stated_cost(recipe: Mapping[str, Any]) -> Cost | None:
    """Read the cost that a recipe, or a feature file's encoder, states.

    Parameters
    ----------
    recipe : mapping
        As :meth:`Encoder.describe` returns it, from any source.

    Returns
    -------
    Cost or None
        None where it states none, as files of earlier versions do.
    """
    try:
        stated = recipe[RECIPE_KEY]
        cost = Cost(**{name: int(stated[name]) for name in Cost.__dataclass_fields__})
    except (KeyError, TypeError, ValueError):
        return None
    return cost if min(asdict(cost).values()) > 0 else None


def count_multiply_adds(module: nn.Module, side: int) -> int:
    """Count the multiply-adds of a model for one image.

    Parameters
    ----------
    module : nn.Module
        Takes images of shape (1, 3, side, side); it is not changed.
    side : int
        Side of the image in pixels.

    Returns
    -------
    int
        Multiply-adds.
    """
    try:
        return _count(_without_numbers(module), side, "meta")
    # Where a forward pass looks at its numbers, only real ones can be counted.
    except Exception:  # noqa: BLE001
        device = next((str(p.device) for p in module.parameters()), "cpu")
        return _count(copy.deepcopy(module), side, device)


def _count(module: nn.Module, side: int, device: str) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, side, side, device=device)
    # Not inference mode, in which torch does not split attention into its products.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(image)
    return int(counter.get_total_flops()) // 2


def _without_numbers(module: nn.Module) -> nn.Module:
    """Copy a model without its weights' memory."""
    from torch import nn

    # What stands in the memo is taken for copied already.
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(module, memo)
