"""The zero-shot classifier as an estimator of scikit-learn: its checks, and its tools on pictures and embeddings."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from clipkit.classify.head import UNKNOWN, Head
from clipkit.classify.zeroshot import ZeroShotClassifier
from clipkit.errors import QueryError, ShapeError
from tests.classify.test_zeroshot import WordEncoder, scenes
from tests.support.colours import COLOURS, ColourEncoder

EAGER = "it answers without fit: its head is made from the words at construction, where mistakes in them are said"
WIDTH = "the width of embeddings is the encoder's, and the check brings another"
NAMES = "classes are words given at construction, and the check brings labels that are none of them"
EXCUSED = {
    **dict.fromkeys(
        ["check_no_attributes_set_in_init", "check_do_not_raise_errors_in_init_or_set_params", "check_set_params"],
        EAGER,
    ),
    **dict.fromkeys(
        [
            "check_fit_score_takes_y",
            "check_estimators_overwrite_params",
            "check_dont_overwrite_parameters",
            "check_estimators_fit_returns_self",
            "check_readonly_memmap_input",
            "check_estimators_dtypes",
            "check_estimators_empty_data_messages",
            "check_pipeline_consistency",
            "check_estimators_pickle",
            "check_f_contiguous_array_estimator",
            "check_classifiers_classes",
            "check_classifiers_train",
            "check_supervised_y_2d",
            "check_decision_proba_consistency",
            "check_methods_sample_order_invariance",
            "check_methods_subset_invariance",
            "check_fit2d_1sample",
            "check_fit2d_1feature",
            "check_dict_unchanged",
            "check_fit_idempotent",
            "check_fit_check_is_fitted",
            "check_n_features_in",
            "check_fit2d_predict1d",
            "check_requires_y_none",
        ],
        WIDTH,
    ),
    **dict.fromkeys(
        [
            "check_n_features_in_after_fitting",
            "check_positive_only_tag_during_fit",
            "check_complex_data",
            "check_dtype_object",
            "check_estimators_nan_inf",
            "check_estimator_sparse_array",
            "check_estimator_sparse_matrix",
            "check_classifier_data_not_an_array",
            "check_classifiers_one_label",
            "check_classifiers_regression_target",
        ],
        NAMES,
    ),
}


@parametrize_with_checks(
    [ZeroShotClassifier(ColourEncoder(), ["red", "blue"], templates="plain", normalize=True)],
    expected_failed_checks=lambda _: EXCUSED,
)
def test_scikit_learns_own_checks_hold(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# --- what the excused checks ask, of embeddings and labels that fit ---


def colours(*names: str) -> ZeroShotClassifier:
    return ZeroShotClassifier(ColourEncoder(), list(names or COLOURS), templates="plain")


@pytest.fixture
def rows(photos: Path) -> Any:
    return ColourEncoder().encode_images([photos / f"{name}.png" for name in COLOURS])


def test_a_fit_changes_no_parameter_and_is_the_same_twice(rows: Any) -> None:
    classifier = colours()
    before = classifier.get_params()
    answers = [classifier.fit(rows, list(COLOURS)).predict_proba(rows) for _ in range(2)]
    np.testing.assert_array_equal(*answers)
    assert all(value is before[name] for name, value in classifier.get_params().items())
    assert classifier.n_features_in_ == 4
    check_is_fitted(classifier)
    parts = np.concatenate([classifier.predict_proba(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(parts, answers[0], atol=1e-4)
    for wrong in (rows[:, :3], 2 * rows, np.full_like(rows, np.nan)):
        with pytest.raises(ShapeError):
            classifier.fit(wrong)
        with pytest.raises(ShapeError):
            classifier.predict(wrong)


def test_a_clone_is_made_of_the_same_words(rows: Any) -> None:
    classifier = ZeroShotClassifier(ColourEncoder(), ["red", "blue"], templates="plain", unknown=True).adapt(rows)
    again = clone(classifier)
    assert (again.classes, again.templates, again.unknown) == (["red", "blue"], "plain", True)
    assert again.head.rejection.cut != classifier.head.rejection.cut  # what was learned stays behind
    np.testing.assert_array_equal(again.predict_proba(rows), classifier.predict_proba(rows))


def test_a_clone_of_a_saved_head_is_that_head_and_not_one_of_its_names(rows: Any) -> None:
    head = Head(("red", "blue"), rows[[2, 0]], np.zeros(2, np.float32), 5.0, "colour", "c0" * 32)
    classifier = clone(ZeroShotClassifier.from_head(ColourEncoder(), head))
    np.testing.assert_array_equal(classifier.predict_proba(rows), head.probabilities(rows))
    assert classifier.prompts is None
    fitted = classifier.fit(rows)
    assert fitted.classes_.tolist() == ["blue", "red"]
    np.testing.assert_array_equal(fitted.predict_proba(rows), head.probabilities(rows)[:, ::-1])
    with pytest.raises(QueryError, match="a head brings its own way of answering"):
        ZeroShotClassifier(ColourEncoder(), head, unknown=True)


def test_what_was_calibrated_survives_a_pickle(rows: Any) -> None:
    classifier = ZeroShotClassifier(ColourEncoder(), ["red", "blue"], templates="plain", unknown=True)
    classifier.calibrate(rows, [name if name in ("red", "blue") else None for name in COLOURS])
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict(rows), classifier.predict(rows))
    assert again.head.temperature == classifier.head.temperature


def test_new_parameters_make_a_new_head(rows: Any) -> None:
    classifier = colours("red", "blue")
    assert classifier.set_params(classes=["green", "grey", "blue"]).predict(rows).tolist()[:3] == [
        "grey",
        "green",
        "blue",
    ]
    with pytest.raises(ValueError, match="Invalid parameter"):
        classifier.set_params(nothing=1)


# --- scikit-learn's tools ---


def test_pictures_are_cross_validated_from_their_paths(photos: Path) -> None:
    files = [str(photos / f"{name}.png") for name in COLOURS] * 3
    labels = list(COLOURS) * 3
    assert cross_val_score(colours(), files, labels, cv=3).tolist() == [1, 1, 1]
    assert cross_val_predict(colours(), files, labels, cv=3).tolist() == labels


def test_templates_are_chosen_by_a_grid_search() -> None:
    rows, labels = scenes(["a cat", "a dog"] * 12, noise=0.5), ["cat", "dog"] * 12
    classifier = ZeroShotClassifier(WordEncoder(), ["dog", "cat"], templates="plain")
    search = GridSearchCV(classifier, {"templates": ["some {}", "a {}"]}, cv=3, error_score="raise").fit(rows, labels)
    assert search.best_params_ == {"templates": "a {}"}
    assert search.best_score_ > min(search.cv_results_["mean_test_score"])


def test_two_classes_in_any_order_have_the_right_area_and_probabilities() -> None:
    rows, labels = scenes(["cat", "dog"] * 20, noise=0.4), ["cat", "dog"] * 20
    for names in (["cat", "dog"], ["dog", "cat"]):
        classifier = ZeroShotClassifier(WordEncoder(), names, templates="plain")
        assert classifier.logits(rows).shape == (40, 2)
        assert classifier.decision_function(rows).shape == (40,)
        for scoring in ("roc_auc", "neg_log_loss", "accuracy"):
            found = cross_val_score(classifier, rows, labels, cv=4, scoring=scoring, error_score="raise")
            assert found.mean() > (-0.3 if scoring == "neg_log_loss" else 0.9), (names, scoring)
        for method in ("sigmoid", "isotonic"):
            calibrated = CalibratedClassifierCV(classifier, cv=4, method=method).fit(rows, labels)
            assert calibrated.score(rows, labels) > 0.9, (names, method)


def test_labels_of_no_class_and_of_another_number_are_refused(rows: Any) -> None:
    with pytest.raises(QueryError, match="1 labels are no class: Red"):
        colours("red", "blue").fit(rows[:2], ["Red", "blue"])
    with pytest.raises(ShapeError, match="8 pictures and 2 labels"):
        colours("red", "blue").fit(rows, ["red", "blue"])
    colours("red", "blue").fit(rows[:3], ["red", None, UNKNOWN])


def test_several_classes_a_picture_keep_the_order_of_their_columns(rows: Any) -> None:
    classifier = ZeroShotClassifier(ColourEncoder(), ["red", "blue"], templates="plain", multi_label=True)
    truth = classifier.predict(rows)
    assert classifier.fit(rows, truth).classes_.tolist() == ["red", "blue"]
    assert classifier.score(rows, truth) == 1
    assert classifier.decision_function(rows).shape == (8, 2)
    with pytest.raises(ShapeError, match="8 pictures of 2 classes, and labels of shape"):
        classifier.fit(rows, truth[:, :1])


def test_answers_weigh_what_they_are_said_to(rows: Any) -> None:
    labels = ["red", "blue", "blue", *["red"] * 5]
    classifier = colours("red", "blue")
    right = classifier.predict(rows) == np.array(labels)
    assert 0 < right.mean() < 1
    assert classifier.score(rows, labels, sample_weight=right + 0.0) == 1


def test_embeddings_of_any_length_are_read_where_that_is_asked_for(rows: Any) -> None:
    scaled = ZeroShotClassifier(ColourEncoder(), list(COLOURS), templates="plain", normalize=True)
    np.testing.assert_allclose(scaled.predict_proba(3 * rows), colours().predict_proba(rows), atol=1e-5)
    with pytest.raises(ShapeError, match="has length 0, and no direction"):
        scaled.predict(0 * rows)
    with pytest.raises(ShapeError, match="has length 3"):
        colours().predict(3 * rows)


def test_columns_of_tables_are_pictures_embeddings_and_labels(photos: Path, rows: Any) -> None:
    """Of any index: the parts of `train_test_split` and of a cross-validation do not begin at 0."""
    files, labels = pd.Series([photos / f"{name}.png" for name in COLOURS], index=range(7, 15)), pd.Series([*COLOURS])
    classifier = colours()
    for given in (files, files.to_frame(), pd.DataFrame(rows)):
        assert classifier.predict(given).tolist() == [*COLOURS]
        for right in (labels, labels.to_frame(), np.array(labels)[:, None]):
            assert classifier.fit(given, right).score(given, right) == 1
    assert cross_val_score(classifier, files, labels, cv=KFold(4), error_score="raise").tolist() == [1] * 4


def test_a_name_instead_of_an_encoder_is_told_how_to_load_it() -> None:
    with pytest.raises(QueryError, match="'starter' is no encoder") as said:
        ZeroShotClassifier("starter", ["cat", "dog"])  # type: ignore[arg-type]
    assert said.value.hint == 'clipkit.load_encoder("starter") makes one'


def test_probabilities_are_cross_validated_where_scikit_learn_counts_classes(rows: Any) -> None:
    """`cross_val_predict` and CalibratedClassifierCV(ensemble=False) hand `fit` the positions of the sorted classes."""
    names = sorted(COLOURS)
    twice, labels = np.concatenate([rows, rows]), np.array([*COLOURS, *COLOURS])
    found = cross_val_predict(colours(), twice, labels, cv=2, method="predict_proba")
    assert [names[i] for i in found.argmax(axis=1)] == labels.tolist()
    sure = CalibratedClassifierCV(colours(), cv=2, ensemble=False).fit(twice, labels)
    assert sure.predict(twice).tolist() == labels.tolist()
    with pytest.raises(QueryError, match="labels are no class"):
        colours().fit(rows, np.arange(1, 9))
