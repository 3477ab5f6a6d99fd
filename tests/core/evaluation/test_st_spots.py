"""Patches centred on labelled points."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation import EvaluateConfig, ProtocolConfig, evaluate
from napari_mcm.core.evaluation.dataset import neighbour_means
from napari_mcm.core.evaluation.labels import spot_grid
from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.reading import read_features
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from tests.core.conftest import stained_image

COMPUTE = ComputeConfig(device="cpu", precision="float32")


def test_each_point_is_the_centre_of_a_block(tissue_slide):
    centres = np.array([[300.0, 300], [340, 300], [620, 500], [20, 20]])
    with open_slide(tissue_slide) as slide:
        grid = spot_grid(slide, centres, 64, 0.5)
    # The last one's patch would reach beyond the slide.
    assert len(grid) == 3 * 9
    middle = [np.flatnonzero((grid.centres == c).all(1)) for c in centres[:3]]
    assert [len(found) for found in middle] == [1, 1, 1]
    # Neighbours are those of the block, though another block lies nearer.
    values = np.arange(len(grid), dtype=np.float32)[:, None]
    sets = FeatureSet(values, grid, np.zeros(len(grid), np.uint8), {})
    means = neighbour_means(sets, np.concatenate(middle))
    assert_allclose(means[:, 0], [4, 13, 22])
    around = grid.centres[:9] - centres[0]
    assert_array_equal(np.unique(around), [-64, 0, 64])


def test_spots_are_evaluated_on_patches_of_their_own(write_slide, tmp_path):
    slides, rng = [], np.random.default_rng(0)
    for name in ("left", "right"):
        slides.append(write_slide(stained_image(1200, 1000), f"{name}.ome.tif"))
        points = rng.integers(300, 700, (30, 2)) + 0.5
        lines = [f"{x},{y},{'ab'[i % 2]},5" for i, (x, y) in enumerate(points)]
        text = "\n".join(["x,y,label,radius", *lines])
        (tmp_path / f"{name}_spots.csv").write_text(text)
    asked = EvaluateConfig(
        slides=tuple(slides),
        encoder="random:test_resnet",
        labels=(tmp_path,),
        centred=True,
        out=tmp_path / "out",
        protocol=ProtocolConfig(draws=2, resamples=100),
        grid=GridConfig(patch_size=64),
        compute=COMPUTE,
    )
    result = run(evaluate(asked))
    assert result.classes == {"a": 30, "b": 30}
    kept = read_features(tmp_path / "out/centred/random-test_resnet/left.features.zarr")
    assert len(kept) == 30 * 9
    x, y, *_ = (tmp_path / "left_spots.csv").read_text().split("\n")[1].split(",")
    (row,) = np.flatnonzero(
        (kept.grid.centres == (float(x) - 0.5, float(y) - 0.5)).all(1)
    )
    with open_slide(slides[0]) as slide:
        pixels = slide.read(tuple(kept.grid.xy[row].tolist()), (64, 64), 0.5)
    expected = load_encoder("random:test_resnet", COMPUTE).encode(pixels[None])
    assert_allclose(kept.features[row], expected[0], rtol=1e-4, atol=1e-5)


def test_centred_patches_need_slides_and_points(tmp_path):
    asked = EvaluateConfig(
        features=(str(tmp_path),), centred=True, out=tmp_path / "out"
    )
    with pytest.raises(ConfigError, match="--centred: needs slides"):
        run(evaluate(asked))
