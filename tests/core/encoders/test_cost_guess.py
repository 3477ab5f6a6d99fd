"""The cost of an encoder by its name is what torch counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_mcm.core.encoders.cost_guess import guess_multiply_adds


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("efficientnet_lite0", 224),
        ("efficientnet_lite2", 224),
        ("resnet18", 224),
        ("vit_tiny_patch16_224", 224),
        ("vit_small_patch16_224", 224),
    ],
)
def test_a_known_name_is_guessed_as_torch_counts(name: str, side: int) -> None:
    timm = pytest.importorskip("timm")
    from napari_mcm.core.encoders.cost import count_multiply_adds

    counted = count_multiply_adds(timm.create_model(name, num_classes=0), side)
    assert guess_multiply_adds(name, side) == pytest.approx(counted, rel=0.02)


def test_convolutions_grow_with_the_patch_and_vits_do_not() -> None:
    small, large = (
        guess_multiply_adds("offline:efficientnet_lite0", n) for n in (112, 224)
    )
    assert small is not None and large == pytest.approx(4 * small)
    vit = "timm/vit_large_patch14_dinov2.lvd142m"
    assert guess_multiply_adds(vit, 112) == guess_multiply_adds(vit, 224) is not None


def test_an_unknown_name_is_not_guessed(tmp_path: Path) -> None:
    for spec in ("", "some_network", str(tmp_path)):
        assert guess_multiply_adds(spec) is None


def test_a_run_states_its_cost(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    recipe = folder / "recipe.json"
    recipe.write_text(
        '{"architecture": "resnet18", "cost": '
        '{"parameters": 3, "multiply_adds": 5, "side": 224}}'
    )
    assert guess_multiply_adds(str(tmp_path)) == guess_multiply_adds(str(folder)) == 5
    recipe.write_text('{"architecture": "resnet18"}')
    assert guess_multiply_adds(str(tmp_path)) == guess_multiply_adds("resnet18")
    recipe.write_text("[")
    assert guess_multiply_adds(str(tmp_path)) is None
