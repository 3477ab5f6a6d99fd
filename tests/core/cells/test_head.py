"""The linear layer on frozen features."""

import pytest
import torch

from napari_mcm.core.cells.network import Head


@pytest.fixture
def features():
    """Features of 40 images: all alike in spread, but for one that is nearly silent."""
    values = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) * 3 + 5
    values[:, 2] = 0.0
    values[0, 2] = 1e-5
    return values


def scaled(head, features):
    return (features - head.mean) / head.std


def test_features_are_brought_to_one_scale(features):
    head = Head(8, 2)
    head.scale_by(features)
    others = [0, 1, 3, 4, 5, 6, 7]
    found = scaled(head, features)[:, others]
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=0, correction=0), torch.ones(7))


def test_what_was_silent_does_not_drown_the_others_when_it_speaks(features):
    head = Head(8, 2)
    head.scale_by(features)
    loud = features[:1].clone()
    # No more than the others say: as a unit that had not fired on the first images.
    loud[0, 2] = 3.0
    assert scaled(head, loud).abs().max() < 20


def test_features_that_are_all_the_same_stay_finite():
    head = Head(3, 2)
    head.scale_by(torch.ones(5, 3))
    assert torch.isfinite(head(torch.ones(2, 3))).all()
