"""The probe that runs while an encoder is trained."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.evaluation import HeldOutProbe, read_probe
from napari_mcm.core.grid import GridConfig, make_grid
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue
from tests.core.conftest import stained_image
from tests.core.evaluation.conftest import region, write_regions


def planted(n=120, groups=3, seed=0):
    """Grey squares; those of class b are brighter by as much as their noise."""
    rng = np.random.default_rng(seed)
    classes = ["ab"[i % 2] for i in range(n)]
    level = rng.normal(100, 10, n) + [10 * (c == "b") for c in classes]
    pixels = np.repeat(level, 4 * 4 * 3).reshape(n, 4, 4, 3).astype(np.uint8)
    return pixels, classes, [f"slide {i * groups // n}" for i in range(n)]


def seeing(pixels):
    """Features that hold the brightness, as an angle."""
    turn = pixels.mean(axis=(1, 2, 3)) / 255
    return np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32)


def blind(pixels):
    rng = np.random.default_rng(int(pixels.sum()))
    return rng.normal(size=(len(pixels), 2)).astype(np.float32)


@pytest.mark.parametrize("groups", [1, 3])
def test_an_encoder_that_sees_is_told_from_one_that_does_not(groups):
    probe = HeldOutProbe(*planted(groups=groups))
    sees, does_not = probe(seeing), probe(blind)
    assert set(sees) == {"few_shot_auroc", "similarity_auroc"}
    assert sees["few_shot_auroc"] > 0.7 > 0.6 > does_not["few_shot_auroc"]
    assert sees["similarity_auroc"] > 0.58 > 0.55 > does_not["similarity_auroc"]


def test_it_says_the_same_of_the_same_and_takes_any_batch():
    probe = HeldOutProbe(*planted())
    sizes = []

    def encode(pixels):
        sizes.append(len(pixels))
        return seeing(pixels)

    assert probe(encode) == probe(seeing) == probe.of_features(seeing(probe.pixels))
    assert sizes == [64, 56]


def test_it_can_be_left_after_each_batch_and_each_draw():
    probe, sizes = HeldOutProbe(*planted(), draws=3), [0]

    def encode(pixels):
        sizes[-1] += len(pixels)
        return seeing(pixels)

    events = []
    found = run(
        probe.steadily(encode, 8), lambda e: (events.append(e), sizes.append(0))
    )
    assert found == probe(seeing)
    assert max(sizes) == 8 and sum(sizes) == 120
    assert [e.done for e in events if e.unit == "draws"][:3] == [1, 2, 3]


def test_an_encoder_that_diverged_has_no_figure():
    probe = HeldOutProbe(*planted())
    found = probe(lambda pixels: np.full((len(pixels), 3), np.nan, np.float32))
    assert np.isnan(list(found.values())).all()


def test_labels_that_do_not_fit_are_told():
    pixels, classes, groups = planted()
    with pytest.raises(FeatureError, match="120 patches with 119 classes"):
        HeldOutProbe(pixels, classes[1:], groups)
    with pytest.raises(FeatureError, match="class a has 40 training patches .* 50 are"):
        HeldOutProbe(pixels, classes, groups, k=50)


def test_it_is_read_from_labelled_slides(write_slide, tmp_path):
    slides = [
        open_slide(write_slide(stained_image(1200, 1000, i), f"s{i}.ome.tif"))
        for i in range(2)
    ]
    for slide in slides:
        write_regions(
            tmp_path / "labels" / f"{slide.name}.geojson",
            region("tumour", 0, 0, 600, 1000),
            region("stroma", 600, 0, 1200, 700),
            region("undetermined", 600, 700, 1200, 1000),
        )
    grids = [make_grid(s, find_tissue(s), GridConfig(patch_size=64)) for s in slides]
    probe = run(read_probe(slides, grids, [tmp_path / "labels"], most=20, k=5, draws=3))
    assert probe.names == ("stroma", "tumour")
    assert probe.pixels.shape == (80, 64, 64, 3)
    assert np.bincount(probe.labels).tolist() == [40, 40]
    assert probe.group_names == ("s0", "s1")
    again = run(read_probe(slides, grids, [tmp_path / "labels"], most=20, k=5, draws=3))
    assert probe(seeing) == again(seeing)
    heard = []
    for i, slide in enumerate(slides):
        write_regions(
            tmp_path / "labels" / f"{slide.name}.geojson",
            region("tumour", 0, 0, 600, 1000),
            region("stroma", 600, 0, 1200, 700),
            region("fat", 600, 800, 800 if i else 700, 1000),
        )
    read = read_probe(slides, grids, [tmp_path / "labels"], most=20, k=5, draws=3)
    without = run(read, heard.append)
    assert without.names == probe.names
    assert [e.text for e in heard if isinstance(e, Note)] == [
        "the probe leaves out fat: fewer than 5 labelled patches for training"
    ]
    for slide in slides:
        slide.close()
