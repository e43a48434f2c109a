"""The linear probe: scikit-learn's answers, C from validation, and zero-shot as a floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clipkit.classify.head import Head, gelu
from clipkit.datasets.sampling import held_back
from clipkit.errors import ClipkitError, DatasetError, ModelMismatch, NotFittedError, QueryError, ShapeError
from clipkit.learn.base import choose
from clipkit.learn.linear_probe import STRENGTHS, LinearProbe
from tests.support.colours import ColourEncoder

Floats = npt.NDArray[np.float32]


def unit(rows: npt.ArrayLike) -> Floats:
    table = np.asarray(rows, dtype=np.float32)
    return table / np.linalg.norm(table, axis=-1, keepdims=True)


def clouds(each: int, *, dim: int = 12, count: int = 4, spread: float = 0.7, seed: int = 0) -> tuple[Floats, Any]:
    """`each` rows about each of `count` directions that are the same for every seed, all within a narrow cone."""
    centres = unit(np.random.default_rng(99).normal(size=(count, dim)))
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    cone = np.full(dim, 1.5)
    rows = unit(centres[labels] + spread * rng.normal(size=(len(labels), dim)) / dim**0.5 + cone)
    return rows, np.array(["ant", "bee", "cat", "dog", "eel", "fox"])[labels]


def text_head(dim: int = 12, *, quality: float = 1.0, count: int = 4) -> Head:
    """A zero-shot head whose rows are near the centres of `clouds`, in another order of classes."""
    centres = unit(np.random.default_rng(99).normal(size=(count, dim)))
    noise = np.random.default_rng(7).normal(size=centres.shape) / dim**0.5
    weight = unit(quality * centres + (1 - quality) * noise)[::-1].copy()
    names = ("ant", "bee", "cat", "dog", "eel", "fox")[:count][::-1]
    return Head(names, weight, np.zeros(count, np.float32), 20.0, "colour", "c0" * 32)


@pytest.mark.parametrize("strength", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize(("each", "count"), [(30, 4), (2, 4), (30, 2)], ids=["many", "fewer than d", "two classes"])
def test_the_probe_is_scikit_learns_logistic_regression(strength: float, each: int, count: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = clouds(each, count=count)
    asked, _ = clouds(20, count=count, seed=1)
    oracle = LogisticRegression(C=strength, tol=1e-8, max_iter=100_000).fit(rows.astype(np.float64), labels)
    probe = LinearProbe(C=strength).fit(rows, labels)
    assert probe.classes_.tolist() == oracle.classes_.tolist()
    np.testing.assert_allclose(probe.predict_proba(asked), oracle.predict_proba(asked), atol=5e-3)
    assert probe.predict(asked).tolist() == oracle.predict(asked).tolist()
    assert probe.score(*clouds(20, count=count, seed=2)) == oracle.score(*clouds(20, count=count, seed=2))
    weight = probe.coef_[1:] - probe.coef_[:1] if count == 2 else probe.coef_
    scale = np.abs(oracle.coef_).max()
    np.testing.assert_allclose(weight / scale, oracle.coef_ / scale, atol=0.02)
    chosen = probe.C_
    assert chosen == strength


def test_c_is_the_best_on_validation_and_the_last_fit_is_on_everything() -> None:
    from sklearn.linear_model import LogisticRegression

    train, held = clouds(6, spread=2.0), clouds(25, spread=2.0, seed=1)
    probe = LinearProbe().fit(*train, validation=held)
    accuracy = {
        C: LogisticRegression(C=C, max_iter=10_000).fit(train[0].astype(np.float64), train[1]).score(*held)
        for C in STRENGTHS
    }
    assert probe.choice_ is not None
    assert dict(probe.choice_.tried) == pytest.approx(accuracy, abs=0.02)
    assert accuracy[probe.C_] >= max(accuracy.values()) - 0.02
    assert len(set(accuracy.values())) > 2  # it was a choice
    both = np.concatenate([train[0], held[0]]), np.concatenate([train[1], held[1]])
    again = LinearProbe(C=probe.C_).fit(*both)
    np.testing.assert_allclose(probe.predict_proba(held[0]), again.predict_proba(held[0]), atol=1e-5)


def test_without_a_validation_part_a_fifth_of_each_class_is_held_back() -> None:
    rows, labels = clouds(10)
    train, held = held_back(labels, seed=3)
    assert sorted([*train, *held]) == list(range(40))
    assert np.unique(labels[held], return_counts=True)[1].tolist() == [2, 2, 2, 2]
    mine = LinearProbe(seed=3).fit(rows, labels)
    given = LinearProbe().fit(rows[train], labels[train], validation=(rows[held], labels[held]))
    assert mine.choice_ is not None
    assert given.choice_ is not None
    assert mine.choice_.tried == given.choice_.tried
    train, held = held_back(["a", "b", "b", "c", "c", "c"], seed=0)
    assert [["a", "b", "b", "c", "c", "c"][i] for i in held] == ["b", "c"]
    with pytest.raises(DatasetError, match="none to choose on"):
        LinearProbe().fit(rows[::10], labels[::10])


def test_of_equal_accuracies_the_surer_setting_is_chosen() -> None:
    targets = np.array([0, 1])
    tables = {sure: np.array([[sure, 0], [0, sure]], np.float32) for sure in (1.0, 3.0, 2.0)}
    tables[9.0] = np.array([[9, 0], [9, 0]], np.float32)
    choice = choose(tables, lambda setting: tables[setting], targets)
    assert (choice.setting, choice.accuracy) == (3.0, 1.0)
    assert choice.tried == ((1.0, 1.0), (3.0, 1.0), (2.0, 1.0), (9.0, 0.5))


@pytest.mark.parametrize("kind", ["str", "int"])
def test_labels_may_be_of_any_kind_and_come_back_so(kind: str) -> None:
    rows, names = clouds(10)
    labels = names if kind == "str" else np.searchsorted(["ant", "bee", "cat", "dog"], names) * 10
    probe = LinearProbe(C=100).fit(rows, labels)
    assert set(probe.predict(rows).tolist()) <= set(labels.tolist())
    assert probe.score(rows, labels) > 0.9
    assert probe.head(ColourEncoderOf(12)).classes == tuple(str(name) for name in sorted(set(labels.tolist())))


class ColourEncoderOf(ColourEncoder):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim


@pytest.mark.parametrize("options", [{}, {"zeroshot": True}, {"hidden": 8}], ids=["probe", "text", "gelu"])
def test_the_head_says_what_the_probe_says(tmp_path: Path, options: dict[str, Any]) -> None:
    rows, labels = clouds(12)
    if options.get("zeroshot"):
        options = {"zeroshot": text_head()}
    probe = LinearProbe(**options).fit(rows, labels)
    head = probe.head(ColourEncoderOf(12))
    asked, _ = clouds(20, seed=1)
    np.testing.assert_allclose(head.logits(asked), probe.decision_function(asked), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(head.probabilities(asked), probe.predict_proba(asked), atol=1e-4)
    head.save(tmp_path / "h.safetensors")
    assert Head.load(tmp_path / "h.safetensors").predict(asked).tolist() == probe.predict(asked).tolist()
    assert (head.space, head.model, head.dim) == ("projected", "colour", 12)
    assert LinearProbe(space="backbone", C=1).fit(rows, labels).head(ColourEncoderOf(4)).space == "backbone"
    with pytest.raises(ModelMismatch, match="width 12"):
        probe.head(ColourEncoderOf(4))


# --- from words ---


def test_a_text_probe_without_strength_is_zero_shot() -> None:
    head = text_head(quality=0.7)
    rows, labels = clouds(3)
    probe = LinearProbe(zeroshot=head, C=0).fit(rows, labels)
    order = [head.classes.index(name) for name in probe.classes_]
    np.testing.assert_allclose(probe.decision_function(rows), head.logits(rows)[:, order], atol=1e-4)


def test_a_text_probe_with_much_strength_is_a_plain_one() -> None:
    """What the two differ in, a penalty, weighs nothing then where classes overlap."""
    rows, labels = clouds(200, dim=4, spread=2.0)
    plain = LinearProbe(C=1e5).fit(rows, labels)
    from_text = LinearProbe(zeroshot=text_head(dim=4, quality=0.2), C=1e5).fit(rows, labels)
    np.testing.assert_allclose(from_text.predict_proba(rows), plain.predict_proba(rows), atol=0.02)


def test_the_correction_is_the_minimum_of_its_loss() -> None:
    from scipy.optimize import minimize

    from clipkit.learn.softmax_regression import correct

    rows, names = clouds(5, dim=6)
    targets = np.unique(names, return_inverse=True)[1]
    given = text_head(dim=6, quality=0.5).logits(rows)[:, ::-1]
    mean, spread, centre = rows.mean(axis=0), given.std(), given.mean(axis=0)

    def loss(flat: npt.NDArray[np.float64]) -> float:
        weight, bias, scale = flat[:24].reshape(4, 6), flat[24:28], flat[28:]
        logits = given + (rows - mean) @ weight.T + bias + scale * (given - centre) / spread
        entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), targets]
        return float(3 * entropy.sum() + flat @ flat / 2)

    best = minimize(loss, np.zeros(32), method="L-BFGS-B", options={"maxfun": 10**6, "ftol": 1e-14, "gtol": 1e-7}).x
    found = correct(rows, given, targets, C=3.0, with_scale=True)
    np.testing.assert_allclose(found.weight.ravel(), best[:24], atol=5e-3)
    np.testing.assert_allclose(found.scale * spread, best[28:], atol=5e-3)
    np.testing.assert_allclose(found.bias + found.weight @ mean + found.scale * centre, best[24:28], atol=5e-3)


def test_few_shots_do_not_fall_below_zero_shot() -> None:
    """A good zero-shot head and one useless picture a class: validation keeps the head."""
    head = text_head(quality=1.0)
    asked = clouds(100, seed=5)
    zero = float(np.mean(head.predict(asked[0]) == asked[1]))
    plain, from_text = [], []
    for seed in range(5):
        train, held = clouds(1, spread=4.0, seed=10 + seed), clouds(4, seed=20 + seed)
        probe = LinearProbe(zeroshot=head).fit(*train, validation=(held[0], held[1]))
        from_text.append(probe.score(*asked))
        plain.append(LinearProbe().fit(*train, validation=(held[0], held[1])).score(*asked))
    assert np.mean(from_text) > zero - 0.02
    assert np.mean(plain) < np.mean(from_text)


def test_a_text_probe_needs_a_head_that_knows_its_classes() -> None:
    rows, labels = clouds(3)
    with pytest.raises(DatasetError, match="has no class 'dog'"):
        LinearProbe(zeroshot=text_head(count=3)).fit(rows, labels)
    with pytest.raises(ModelMismatch, match="width 6, and these have 12"):
        LinearProbe(zeroshot=text_head(dim=6)).fit(rows, labels)
    with pytest.raises(ModelMismatch, match="reads backbone features"):
        LinearProbe(zeroshot=replace(text_head(), space="backbone")).fit(rows, labels)


# --- a hidden layer ---


def test_gelu_is_torchs() -> None:
    import torch

    values = np.linspace(-6, 6, 101, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(values), approximate="tanh").numpy()
    np.testing.assert_allclose(gelu(values), expected, atol=1e-6)


def test_a_hidden_layer_learns_what_no_line_can_separate() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 400)
    rows = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    labels = np.where(np.sin(2 * angles) > 0, "in", "out")  # opposite quarters of the circle
    hidden = LinearProbe(hidden=32).fit(rows[:300], labels[:300])
    assert hidden.score(rows[300:], labels[300:]) > 0.95
    assert LinearProbe().fit(rows[:300], labels[:300]).score(rows[300:], labels[300:]) < 0.7
    again = LinearProbe(hidden=32).fit(rows[:300], labels[:300])
    assert np.array_equal(again.coef_, hidden.coef_)  # the same seed, the same head
    assert not np.array_equal(LinearProbe(hidden=32, seed=1).fit(rows[:300], labels[:300]).coef_, hidden.coef_)
    assert hidden.coef_.shape == (2, 32)


# --- what is refused ---


def test_what_cannot_be_learned_from_gets_a_sentence() -> None:
    rows, labels = clouds(4)
    bad = rows.copy()
    bad[3, 2] = np.nan
    cases: list[tuple[type[ClipkitError], str, tuple[Any, ...], dict[str, Any]]] = [
        (ShapeError, "embedding 3 of 16 has length nan", (bad, labels), {}),
        (ShapeError, "16 embeddings and 15 labels", (rows, labels[:-1]), {}),
        (ShapeError, "has length 2", (2 * rows, labels), {}),
        (ShapeError, r"not \(n, d\)", (rows[0], labels), {}),
        (ShapeError, r"not \(n, d\)", (rows[:0], labels[:0]), {}),
        (DatasetError, "every label is 'ant'", (rows, ["ant"] * 16), {}),
        (DatasetError, "a label is missing", (rows, [None, *labels[1:]]), {}),
        (DatasetError, "a label is missing, NaN", (rows, np.array([np.nan] * 16)), {}),
        (DatasetError, "no picture to learn 'eel' from", (rows, labels), {"validation": (rows[:1], ["eel"])}),
        (ShapeError, "1 validation embeddings and 2 labels", (rows, labels), {"validation": (rows[:1], labels[:2])}),
        (ShapeError, "are not", (rows, labels), {"validation": (rows[:1, :3], labels[:1])}),
    ]
    for kind, message, given, more in cases:
        with pytest.raises(kind, match=message):
            LinearProbe().fit(*given, **more)


def test_impossible_options_are_refused() -> None:
    for options in ({"zeroshot": text_head(), "hidden": 4}, {"C": 0}, {"C": -1}, {"C": np.nan}, {"hidden": 0}):
        with pytest.raises(QueryError):
            LinearProbe(**options).fit(*clouds(4))


def test_a_probe_that_has_learned_nothing_says_so() -> None:
    for ask in (lambda: LinearProbe().predict(np.eye(2)), lambda: LinearProbe().head(ColourEncoder())):
        with pytest.raises(NotFittedError, match="has learned nothing yet"):
            ask()
    rows, labels = clouds(4)
    probe = LinearProbe(C=1).fit(rows, labels)
    with pytest.raises(ShapeError, match="are not"):
        probe.predict(rows[:, :3])
    with pytest.raises(ShapeError, match="16 embeddings and 3 labels"):
        probe.score(rows, labels[:3])
