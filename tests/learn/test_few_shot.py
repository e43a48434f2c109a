"""Few-shot methods against their formulas, and the draw of the shots."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from clipkit.classify.head import Head
from clipkit.datasets.sampling import draw_shots
from clipkit.errors import DatasetError, ModelMismatch, NotFittedError, QueryError, ShapeError
from clipkit.learn.lp_plus_plus import TextBlend
from clipkit.learn.neighbors import NearestNeighbours
from clipkit.learn.prototypes import Prototypes
from clipkit.learn.tip_adapter import TipAdapter, TipAdapterF
from tests.learn.test_linear_probe import ColourEncoderOf, clouds, text_head, unit


def learners(head: Head | None = None) -> list[Any]:
    zeroshot = head or text_head()
    return [NearestNeighbours(), Prototypes(), TipAdapter(zeroshot), TipAdapterF(zeroshot), TextBlend(zeroshot)]


# --- draws ---


def test_each_class_gives_its_shots_and_as_many_to_choose_on_up_to_four() -> None:
    labels = np.array(["b"] * 30 + ["a"] * 25)[np.random.default_rng(0).permutation(55)]
    for shots in (1, 2, 4, 8, 16):
        drawn = draw_shots(labels, shots, seed=1)
        assert Counter(labels[drawn.train].tolist()) == {"a": shots, "b": shots}
        assert Counter(labels[drawn.validation].tolist()) == {"a": min(shots, 4), "b": min(shots, 4)}
        assert not set(drawn.train) & set(drawn.validation)
        assert set(draw_shots(labels, 1, seed=1).train) <= set(drawn.train)  # more shots hold the fewer
    whole = draw_shots(labels, None, seed=1)
    assert sorted([*whole.train, *whole.validation]) == list(range(55))
    assert Counter(labels[whole.validation].tolist()) == {"a": 4, "b": 4}
    assert draw_shots(labels, 4, seed=1).train.tolist() == draw_shots(list(labels), 4, seed=1).train.tolist()
    assert draw_shots(labels, 4, seed=1).train.tolist() != draw_shots(labels, 4, seed=2).train.tolist()


def test_a_class_with_too_few_pictures_is_named() -> None:
    labels = ["a"] * 9 + ["few"] * 3
    with pytest.raises(DatasetError, match="'few' has 3 pictures, and 2 shots need 2 and 2 more to choose on"):
        draw_shots(labels, 2, seed=0)
    with pytest.raises(DatasetError, match="'one' has 1 picture, and 2 are needed"):
        draw_shots([*labels, "one"], None, seed=0)
    with pytest.raises(DatasetError, match="0 shots"):
        draw_shots(labels, 0, seed=0)
    assert len(draw_shots(labels, None, seed=0).validation) == 5


# --- formulas ---


def test_tip_adapter_is_its_formula_on_three_points() -> None:
    keys = unit([[1, 0], [0.6, 0.8], [0, 1]])
    head = Head(("dog", "cat"), unit([[0.8, 0.6], [0, 1]]), np.float32([0.1, 0]), 10.0, "colour", "c0" * 32)
    tip = TipAdapter(head, alpha=2.0, beta=5.5).fit(keys, ["dog", "cat", "cat"])
    x = np.array([0.8, 0.6])
    near = [np.exp(-5.5 * (1 - 0.8)), np.exp(-5.5 * (1 - 0.96)), np.exp(-5.5 * (1 - 0.6))]
    dog = 10 * (0.8 * 0.8 + 0.6 * 0.6 + 0.1) + 2 * near[0]
    cat = 10 * 0.6 + 2 * (near[1] + near[2])
    assert tip.classes_.tolist() == ["cat", "dog"]
    assert tip.logits([x])[0] == pytest.approx([cat, dog], rel=1e-5)
    assert tip.predict_proba([x])[0, 0] == pytest.approx(1 / (1 + np.exp(dog - cat)), rel=1e-4)


def test_the_mixture_is_chosen_on_validation_and_alpha_shrinks_as_keys_are_added() -> None:
    train, held = clouds(4, spread=1.5), clouds(4, spread=1.5, seed=1)
    head = text_head(quality=0.4)
    tip = TipAdapter(head).fit(*train, validation=held)
    assert tip.choice_ is not None
    alpha, beta = tip.choice_.setting
    alone = TipAdapter(head, alpha=alpha, beta=beta).fit(*train)
    assert alone.score(*held) == tip.choice_.accuracy == max(accuracy for _, accuracy in tip.choice_.tried)
    assert (tip.alpha_, tip.beta_) == (pytest.approx(alpha / 2), beta)
    both = np.concatenate([train[0], held[0]]), np.concatenate([train[1], held[1]])
    final = TipAdapter(head, alpha=alpha / 2, beta=beta).fit(*both)
    np.testing.assert_allclose(tip.decision_function(held[0]), final.decision_function(held[0]), atol=1e-4)


def test_prototypes_answer_with_the_nearest_mean() -> None:
    rows, labels = clouds(5)
    asked, _ = clouds(50, seed=1)
    means = np.stack([rows[labels == name].mean(axis=0) for name in sorted(set(labels))])
    distances = ((asked[:, None] - means) ** 2).sum(axis=2)
    plain = Prototypes().fit(rows, labels)
    assert plain.predict(asked).tolist() == np.array(sorted(set(labels)))[distances.argmin(axis=1)].tolist()
    odds = np.exp(-distances) / np.exp(-distances).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(plain.predict_proba(asked), odds, atol=1e-5)
    held = clouds(8, seed=2)
    sure = Prototypes().fit(rows, labels, validation=held)
    assert sure.predict_proba(held[0]).max(axis=1).mean() > plain.predict_proba(held[0]).max(axis=1).mean()


def test_neighbours_vote_as_scikit_learns_do() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rows, labels = clouds(20, spread=2.5)
    held, asked = clouds(10, spread=2.5, seed=1), clouds(30, spread=2.5, seed=2)[0]
    mine = NearestNeighbours().fit(rows, labels, validation=held)
    assert mine.choice_ is not None
    k, sharpness = mine.choice_.setting
    everything = np.concatenate([rows, held[0]]), np.concatenate([labels, held[1]])

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp(sharpness * (1 - distances))

    oracle = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(*everything)
    np.testing.assert_allclose(mine.predict_proba(asked), oracle.predict_proba(asked), atol=1e-4)
    assert len({accuracy for _, accuracy in mine.choice_.tried}) > 1


def test_a_blend_is_linear_and_its_parts_add_up() -> None:
    head = text_head(quality=0.5)
    rows, labels = clouds(6)
    blend = TextBlend(head).fit(rows, labels)
    texts = head.weight[[head.classes.index(name) for name in blend.classes_]]
    visual = blend.coef_ - 20 * blend.scale_[:, None] * texts
    assert blend.choice_ is not None
    if blend.choice_.setting:
        assert np.linalg.norm(visual) > 0
    saved = blend.head(ColourEncoderOf(12))
    np.testing.assert_allclose(saved.logits(rows), blend.decision_function(rows), atol=1e-3)
    assert saved.classes == ("ant", "bee", "cat", "dog")


# --- all of them ---


@pytest.mark.parametrize("place", range(5))
def test_every_method_learns_and_is_the_same_twice(place: int) -> None:
    head = text_head(quality=0.3)
    train, held, asked = clouds(8), clouds(4, seed=1), clouds(50, seed=2)
    zero = float(np.mean(head.predict(asked[0]) == asked[1]))
    first = learners(head)[place].fit(*train, validation=held)
    again = learners(head)[place].fit(*train, validation=held)
    assert first.score(*asked) > max(zero, 0.8)
    assert np.array_equal(first.decision_function(asked[0]), again.decision_function(asked[0]))
    np.testing.assert_allclose(first.predict_proba(asked[0]).sum(axis=1), 1, atol=1e-5)
    assert first.classes_.tolist() == ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize("place", [2, 3, 4])
def test_pictures_that_mislead_leave_zero_shot_as_it_is(place: int) -> None:
    """Keys with shuffled labels: validation falls back to the head that was given."""
    head = text_head()
    rows, labels = clouds(4)
    wrong = np.roll(labels, 4)
    held, asked = clouds(30, seed=1), clouds(100, seed=2)
    zero = float(np.mean(head.predict(asked[0]) == asked[1]))
    assert learners(head)[place].fit(rows, wrong, validation=held).score(*asked) >= zero - 0.02


def test_trained_keys_are_no_worse_on_validation_than_untrained_ones() -> None:
    head = text_head(quality=0.2)
    train, held = clouds(6, spread=2.0), clouds(4, spread=2.0, seed=1)
    plain, trained = TipAdapter(head).fit(*train, validation=held), TipAdapterF(head).fit(*train, validation=held)
    assert plain.choice_ is not None
    assert trained.choice_ is not None
    assert trained.choice_.accuracy >= plain.choice_.accuracy
    assert [setting[0] for setting, _ in trained.choice_.tried] == [0, 10, 25, 50, 100]


def test_what_is_given_to_an_adapter_is_used_and_the_other_is_chosen() -> None:
    head = text_head(quality=0.2)
    train, held = clouds(6, spread=2.0), clouds(4, spread=2.0, seed=1)
    sharp = TipAdapter(head, beta=3.0).fit(*train, validation=held)
    heavy = TipAdapter(head, alpha=7.0).fit(*train, validation=held)
    assert (sharp.beta_, heavy.alpha_) == (3.0, 7.0)
    assert sharp.choice_ is not None
    assert heavy.choice_ is not None
    assert {setting[1] for setting, _ in sharp.choice_.tried} == {3.0}
    assert {setting[0] for setting, _ in heavy.choice_.tried} == {7.0}


@pytest.mark.parametrize("given", [{"alpha": 1.0}, {"beta": 2.0}])
def test_trained_keys_refuse_a_mixture_that_they_choose_themselves(given: dict[str, float]) -> None:
    with pytest.raises(QueryError, match="chooses alpha and beta itself"):
        TipAdapterF(text_head(), **given).fit(*clouds(6))


@pytest.mark.parametrize("place", [0, 2, 3])
def test_many_pictures_are_compared_in_blocks(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (rows, labels), (asked, _) = clouds(6, spread=2.0), clouds(10, spread=2.0, seed=2)
    whole = learners()[place].fit(rows, labels).decision_function(asked)
    monkeypatch.setattr("clipkit.learn.base.BLOCK_SCORES", 3 * len(rows))
    np.testing.assert_allclose(learners()[place].fit(rows, labels).decision_function(asked), whole, atol=1e-3)


def test_keys_learn_from_a_part_of_many_pictures_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.learn.tip_adapter.QUERIES", 8)
    monkeypatch.setattr("clipkit.learn.tip_adapter.BLOCK_SCORES", 1)
    head = text_head(quality=0.2)
    train, held = clouds(12, spread=2.0), clouds(4, spread=2.0, seed=1)
    answers = [TipAdapterF(head).fit(*train, validation=held).decision_function(held[0]) for _ in range(2)]
    np.testing.assert_array_equal(*answers)
    steps, alpha, _ = TipAdapterF(head).fit(*train, validation=held).choice_.setting
    assert steps > 0
    assert alpha > 0


@pytest.mark.parametrize("place", range(5))
def test_what_does_not_fit_is_refused_by_every_method(place: int) -> None:
    rows, labels = clouds(4)
    with pytest.raises(NotFittedError, match="has learned nothing yet"):
        learners()[place].predict(rows)
    with pytest.raises(DatasetError, match="every label is 'ant'"):
        learners()[place].fit(rows, ["ant"] * 16)
    with pytest.raises(ShapeError, match="16 embeddings and 2 labels"):
        learners()[place].fit(rows, labels[:2])
    with pytest.raises(ShapeError, match="nan"):
        learners()[place].fit(np.full_like(rows, np.nan), labels)
    with pytest.raises(DatasetError, match="no picture to learn 'dog' from"):
        learners()[place].fit(rows[:12], labels[:12], validation=(rows, labels))
    if place > 1:
        with pytest.raises(ModelMismatch, match="width 6"):
            learners(text_head(dim=6))[place].fit(rows, labels)
        with pytest.raises(DatasetError, match="has no class 'dog'"):
            learners(text_head(count=3))[place].fit(rows, labels)
