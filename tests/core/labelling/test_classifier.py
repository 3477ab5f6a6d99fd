"""The classifier: what it learns, when it is unsure, and that its file keeps all bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from napari_mcm.core.errors import FeatureError, LabelError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig, Status
from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.core.labelling import (
    NO_FEATURES,
    UNSURE,
    ClassifierConfig,
    features_of_rows,
    fit_classifier,
    held_out_accuracy,
    load_classifier,
    patch_probabilities,
    rows_of_labels,
    save_classifier,
    with_origin,
)
from tests.core.labelling.made_labels import (
    NAMES,
    label_rows,
    make_features,
    true_classes,
)

CONFIG = ClassifierConfig()
THREE = NeighbourhoodConfig(radius=1)


def trained(features, rows, config=CONFIG, **more):
    """Train on the true classes of some patches."""
    found, classes = rows_of_labels(label_rows(features, rows), features)
    vectors = features_of_rows(features, found, config.neighbourhood)
    made = fit_classifier(vectors, classes, NAMES, config, **more)
    return with_origin(made, features.encoder)


def test_two_labels_are_enough_to_tell_two_classes_apart() -> None:
    features = make_features(noise=0.1)
    made = trained(features, np.array([0, 5]))
    assert made.names == ("tumour", "stroma")
    assert not made.calibrated
    won = patch_probabilities(made, features).argmax(axis=1)
    known = true_classes(features.grid) < 2
    assert (won == true_classes(features.grid))[known].all()


def test_probabilities_are_those_of_scikit_learn_on_the_averages() -> None:
    # float64 is scikit-learn's own precision; the map's is float32.
    features = make_features(noise=1.5)
    config = ClassifierConfig(neighbourhood=THREE)
    rows = np.arange(0, 180, 7)
    made = trained(features, rows, config)
    averaged = average_neighbourhood(features, THREE)
    direct = made.probabilities(averaged.features)
    np.testing.assert_allclose(patch_probabilities(made, features), direct, atol=2e-6)
    # Averages that were stored give the same map.
    np.testing.assert_allclose(patch_probabilities(made, averaged), direct, atol=2e-6)
    np.testing.assert_allclose(
        features_of_rows(features, rows, THREE), averaged.features[rows], atol=1e-6
    )


def test_a_patch_without_features_has_no_class_and_does_not_spread() -> None:
    features = make_features()
    values, status = features.features.copy(), features.status.copy()
    values[20], status[20] = np.nan, Status.DECODE_ERROR
    holed = replace(features, features=values, status=status)
    for around in (NeighbourhoodConfig(), THREE):
        config = ClassifierConfig(neighbourhood=around)
        made = trained(holed, np.arange(0, 180, 11), config)
        found = patch_probabilities(made, holed)
        assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [20]
        assert np.flatnonzero(made.decide(found) == NO_FEATURES).tolist() == [20]


def test_what_is_below_the_limit_is_unsure() -> None:
    features = make_features(noise=2.0)
    made = trained(features, np.arange(0, 180, 4))
    found = patch_probabilities(made, features)
    decided = made.decide(found)
    top = found.max(axis=1)
    assert (decided == np.where(top >= 0.6, found.argmax(axis=1), UNSURE)).all()
    assert (decided == UNSURE).any()
    assert (decided >= 0).any()


def test_one_class_is_one_clear_line() -> None:
    features = make_features()
    with pytest.raises(LabelError, match=r"1 class \(tumour\), two are needed"):
        trained(features, np.array([0, 1]))
    with pytest.raises(LabelError, match="no class, two are needed"):
        trained(features, np.array([], np.int64))


def test_the_fit_does_not_depend_on_earlier_fits() -> None:
    features = make_features(noise=1.0)
    rows = np.arange(0, 180, 5)
    first = trained(features, rows)
    trained(features, np.arange(0, 180, 3))
    again = trained(features, rows)
    assert (first.weights == again.weights).all()
    assert first.temperature == again.temperature


def test_the_number_of_threads_changes_no_bit() -> None:
    features = make_features(noise=1.0, dim=256, rows=60, columns=60)
    rows, config = np.arange(0, 3600, 9), ClassifierConfig(neighbourhood=THREE)
    found = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            made = trained(features, rows, config)
            found.append((made.temperature, patch_probabilities(made, features)))
    assert found[0][0] == found[1][0]
    assert found[0][1].tobytes() == found[1][1].tobytes()


def test_a_classifier_file_gives_the_same_bits(tmp_path) -> None:
    features = make_features(noise=1.0)
    config = ClassifierConfig(neighbourhood=THREE, unsure_below=0.7)
    made = trained(features, np.arange(0, 180, 5), config)
    made = with_origin(made, features.encoder, {"fat": "#ffee00"}, {"labels": 36})
    read = load_classifier(save_classifier(tmp_path / "a.safetensors", made))
    assert (read.names, read.config, read.counts) == (made.names, config, made.counts)
    assert read.colors == ("#808080", "#808080", "#ffee00")
    assert read.provenance == {"labels": 36}
    assert read.encoder == features.encoder
    both = [patch_probabilities(one, features) for one in (made, read)]
    assert both[0].tobytes() == both[1].tobytes()


def test_a_classifier_of_another_encoder_or_context_is_refused() -> None:
    features = make_features()
    made = trained(features, np.arange(0, 180, 5))
    other = replace(features, encoder={"fingerprint": "f" * 16, "spec": "other"})
    with pytest.raises(FeatureError, match="another encoder"):
        patch_probabilities(made, other)
    longer = replace(features, features=np.tile(features.features, 2), encoder={})
    with pytest.raises(FeatureError, match="length 32, the classifier needs 16"):
        patch_probabilities(made, longer)
    with pytest.raises(FeatureError, match="averages over 3 × 3 patches"):
        patch_probabilities(made, average_neighbourhood(features, THREE))


def test_held_out_accuracy_is_measured_on_other_slides() -> None:
    sets = [make_features(name, noise=0.5) for name in ("s1", "s2", "s3")]
    rows = np.arange(0, 180, 9)
    vectors = np.concatenate([one.features[rows] for one in sets])
    classes = np.tile(true_classes(sets[0].grid)[rows], 3)
    groups = np.repeat([0, 1, 2], len(rows))
    found = held_out_accuracy(vectors, classes, groups, CONFIG, 0)
    assert (found.n_folds, found.by_slide) == (3, True)
    assert found.mean == 1
    # 60 of 60: the lower end of Wilson's interval is 60 / (60 + 1.96²).
    assert found.low == pytest.approx(60 / (60 + 1.959964**2))
    alone = held_out_accuracy(vectors, classes, None, CONFIG, 0)
    assert (alone.n_folds, alone.by_slide) == (5, False)


def test_the_interval_is_wider_where_slides_differ() -> None:
    """On one slide classes are the wrong way round: labels of a slide are no draws."""
    sets = [make_features(name, noise=0.3) for name in "abcde"]
    rows = np.arange(0, 180, 6)
    vectors = np.concatenate([one.features[rows] for one in sets])
    classes = np.tile(true_classes(sets[0].grid)[rows], 5)
    groups = np.repeat(np.arange(5), len(rows))
    classes[groups == 3] = (classes[groups == 3] + 1) % 3
    smooth = ClassifierConfig(regularization=100)
    found = held_out_accuracy(vectors, classes, groups, smooth, 0)
    assert found.mean == pytest.approx(0.8, abs=0.02)
    # Of 150 single labels it would be .73 to .86: there are five slides, one all wrong.
    assert found.low < 0.4
    assert found.high > 0.95


def test_held_out_accuracy_of_noise_is_chance() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(300, 16)).astype(np.float32)
    classes = np.arange(300) % 3
    found = held_out_accuracy(vectors, classes, None, CONFIG, 0)
    assert found.low < 1 / 3 < found.high
    assert found.high < 0.45
