"""Heads: the right numbers, one small file, and refusal of whatever does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clipkit.classify.head import FORMATS, UNKNOWN, Head, Hidden, Rejection
from clipkit.classify.labels import label
from clipkit.errors import ModelError, ModelMismatch, NotFittedError, ShapeError
from tests.support.colours import ColourEncoder


def make_head(count: int = 3, dim: int = 2, **changes: object) -> Head:
    angles = np.linspace(0, np.pi, count)
    weight = np.zeros((count, dim), np.float32)
    weight[:, 0], weight[:, 1] = np.cos(angles), np.sin(angles)
    names = tuple(f"class {i}" for i in range(count))
    head = Head(names, weight, np.zeros(count, np.float32), 2.0, "colour", "c0" * 32)
    return replace(head, **changes)  # type: ignore[arg-type]


def random_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_logits_and_probabilities_of_a_hand_made_case() -> None:
    head = make_head(bias=np.array([0, 0.5, 0], np.float32))
    logits = head.logits([[0.6, 0.8]])
    assert logits == pytest.approx(np.array([[1.2, 2.6, -1.2]]), abs=1e-6)
    weights = np.exp([1.2, 2.6, -1.2])
    assert head.probabilities([[0.6, 0.8]]) == pytest.approx(weights[None] / weights.sum(), abs=1e-6)
    several = replace(head, multi_label=True)
    assert several.probabilities([[0.6, 0.8]]) == pytest.approx(1 / (1 + np.exp([[-1.2, -2.6, 1.2]])), abs=1e-6)
    assert several.predict([[0.6, 0.8]]).tolist() == [[True, True, False]]
    assert head.predict([[0.6, 0.8], [1, 0]]).tolist() == ["class 1", "class 0"]


def test_extreme_logits_stay_probabilities() -> None:
    for several in (False, True):
        head = make_head(temperature=1e5, multi_label=several)
        probabilities = head.probabilities([[1.0, 0.0]])
        assert np.isfinite(probabilities).all()
        assert probabilities[0, [0, 2]].tolist() == [1, 0]


def test_no_answer_depends_on_blocks_or_on_the_order_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = random_rows(300, 16), random_rows(40, 16, seed=1)
    weight[7] = weight[3]  # an exact tie
    weight[9] = weight[5] + np.float32(1e-7)  # and one that rounding decides
    head = make_head(40, 16, weight=weight)
    whole = head.predict(rows)
    monkeypatch.setattr("clipkit.classify.head.BLOCK_SCORES", 40 * 7)
    assert np.array_equal(head.predict(rows), whole)
    assert np.array_equal(np.concatenate([head.predict(row[None]) for row in rows]), whole)
    order = np.random.default_rng(2).permutation(40)
    names = tuple(head.classes[i] for i in order)
    assert np.array_equal(replace(head, classes=names, weight=weight[order]).predict(rows), whole)
    exact = (rows.astype(np.float64) @ weight.T.astype(np.float64)).argmax(axis=1)
    clear = ~np.isin(exact, [3, 7, 5, 9])
    assert np.array_equal(whole[clear], np.array(head.classes)[exact[clear]])


def test_a_picture_is_known_by_what_it_says_beyond_neutral_texts() -> None:
    rule = Rejection(np.array([0, 0, 1], np.float32), np.array([0, 0.25], np.float32), 0.7)
    weight = np.array([[0.6, 0, 0.8], [0, 0.6, 0.8]], np.float32)
    head = make_head(2, 3, weight=weight, rejection=rule)
    # Beyond the neutral direction the pictures are (1, 0), (0, 1) and 45 degrees between.
    rows = np.array([[0.8, 0, 0.6], [0, 0.8, 0.6], [0.5, 0.5, np.sqrt(0.5)]], np.float32)
    classes = np.array([[0.6, 0, -0.2], [0, 0.6, -0.2]]) / np.sqrt(0.4)
    assert head.distinct() == pytest.approx(classes, abs=1e-6)
    near, far = 0.6 / np.sqrt(0.4), np.sqrt(0.5) * 0.6 / np.sqrt(0.4)
    assert head.known(rows) == pytest.approx([near, near - 0.25, far], abs=1e-6)
    assert head.predict(rows).tolist() == ["class 0", UNKNOWN, UNKNOWN]
    with pytest.raises(NotFittedError):
        make_head().known(rows[:, :2])


@pytest.mark.parametrize("with_rejection", [False, True])
def test_a_saved_head_is_the_same(tmp_path: Path, with_rejection: bool) -> None:
    rule = Rejection(np.array([0.5, 0], np.float32), np.array([0.1, 0.2, 0.3], np.float32), 0.125)
    head = make_head(classes=("Käse", "dog, big", "x"), notes=("a note",), temperature=0.1 + 0.2)
    head = replace(head, rejection=rule if with_rejection else None)
    head.save(tmp_path / "deep" / "pets.safetensors")
    loaded = Head.load(tmp_path / "deep" / "pets.safetensors")
    for name in ("classes", "temperature", "model", "fingerprint", "space", "multi_label", "notes"):
        assert getattr(loaded, name) == getattr(head, name)
    assert np.array_equal(loaded.weight, head.weight)
    assert np.array_equal(loaded.bias, head.bias)
    assert (loaded.rejection is not None) == with_rejection
    if loaded.rejection:
        assert np.array_equal(loaded.rejection.neutral, rule.neutral)
        assert np.array_equal(loaded.rejection.typical, rule.typical)
        assert loaded.rejection.cut == rule.cut
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["pets.safetensors"]


def deep_head() -> Head:
    """Three classes over four hidden units over two numbers."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 2), (4,), (3, 4), (3,))]
    return make_head(weight=arrays[2], bias=arrays[3], hidden=Hidden(arrays[0], arrays[1]))


def test_a_hidden_layer_comes_before_the_classes(tmp_path: Path) -> None:
    head, rows = deep_head(), random_rows(50, 2)
    assert head.hidden is not None
    inner = rows @ head.hidden.weight.T + head.hidden.bias
    units = inner * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    logits = 2.0 * (units @ head.weight.T + head.bias)
    np.testing.assert_allclose(head.logits(rows), logits, atol=1e-5)
    assert np.array_equal(head.best(rows), logits.argmax(axis=1))
    assert np.array_equal(head.ranked(rows, 3)[0], np.argsort(-logits, axis=1))
    assert head.dim == 2
    head.save(tmp_path / "deep.safetensors")
    loaded = Head.load(tmp_path / "deep.safetensors")
    assert np.array_equal(loaded.logits(rows), head.logits(rows))
    with pytest.raises(ShapeError, match=r"not \(n, 2\)"):
        head.logits(random_rows(3, 4))


def test_a_head_without_a_hidden_layer_keeps_the_old_format(tmp_path: Path) -> None:
    """An older clipkit reads it; one with a hidden layer it refuses, instead of answering without that layer."""
    from safetensors import safe_open

    for head, said in ((make_head(), FORMATS[0]), (deep_head(), FORMATS[1])):
        head.save(tmp_path / "h.safetensors")
        with safe_open(tmp_path / "h.safetensors", "np") as stored:
            assert stored.metadata()["format"] == said
    assert FORMATS[:2] == ("clipkit head 1", "clipkit head 2")


def test_each_class_may_have_a_cut_of_its_own_and_a_file_keeps_it(tmp_path: Path) -> None:
    rows = random_rows(200, 4)
    rule = Rejection(np.array([0, 0, 0, 0.1], np.float32), np.zeros(3, np.float32), 0.5)
    head = make_head(3, 4, weight=random_rows(3, 4, seed=1), rejection=rule)
    best, known = head.best(rows), head.known(rows)
    cuts = np.array([0.2, 0.9, 0.99], np.float32)
    replace(head, rejection=replace(rule, cuts=cuts)).save(tmp_path / "h.safetensors")
    loaded = Head.load(tmp_path / "h.safetensors")
    expected = [head.classes[c] if k >= cuts[c] else UNKNOWN for c, k in zip(best, known, strict=True)]
    assert loaded.predict(rows).tolist() == expected
    assert [answers[0].label for answers in label(loaded, rows)] == expected
    assert UNKNOWN in expected
    assert expected != head.predict(rows).tolist()
    with pytest.raises(ShapeError, match="cuts do not fit"):
        replace(head, rejection=replace(rule, cuts=cuts[:2]))


def test_no_changed_byte_of_a_hidden_layer_goes_unseen(tmp_path: Path) -> None:
    file, rows = tmp_path / "deep.safetensors", random_rows(5, 2)
    deep_head().save(file)
    content, expected = file.read_bytes(), deep_head().logits(rows)
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            head = Head.load(file)
        except ModelError:
            continue
        assert np.array_equal(head.logits(rows), expected)


def test_a_hidden_layer_that_does_not_fit_is_refused() -> None:
    right = deep_head().hidden
    assert right is not None
    for weight, bias in (
        (right.weight[:, 0], right.bias),
        (right.weight, right.bias[:3]),
        (right.weight.astype(np.float64), right.bias),
        (right.weight, np.full(4, np.nan, np.float32)),
        (right.weight[:0], right.bias[:0]),
    ):
        with pytest.raises(ShapeError):
            Hidden(weight, bias)
    with pytest.raises(ShapeError, match="does not read the 4 hidden units"):
        make_head(hidden=right)
    with pytest.raises(ShapeError, match="rejection does not fit"):
        replace(deep_head(), rejection=Rejection(np.zeros(2, np.float32), np.zeros(3, np.float32), 0.0))


def test_a_head_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pets.safetensors"
    make_head().save(file)

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        make_head(4).save(file)
    assert len(Head.load(file).classes) == 3
    assert [found.name for found in tmp_path.iterdir()] == ["pets.safetensors"]


def test_no_changed_byte_goes_unseen(tmp_path: Path) -> None:
    file = tmp_path / "pets.safetensors"
    make_head().save(file)
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            head = Head.load(file)
        except ModelError:
            continue
        # What may change is a space of padding, or the name of a field that nobody reads.
        assert np.array_equal(head.weight, make_head().weight)
        assert head.classes == make_head().classes
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is not a head"):
        Head.load(file)


def test_files_that_are_no_head_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not there"):
        Head.load(tmp_path / "none.safetensors")
    save_file({"weight": np.zeros((1, 2), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no format"):
        Head.load(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("a pickle, or a page of text, as it may be")
    with pytest.raises(ModelError, match="is not a head"):
        Head.load(tmp_path / "text")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("a", "b")},
        {"classes": ("a", "b", "a")},
        {"classes": ("a", "b", "")},
        {"weight": np.zeros((3, 2))},
        {"weight": np.full((3, 2), np.nan, np.float32)},
        {"weight": np.zeros(3, np.float32)},
        {"bias": np.zeros(2, np.float32)},
        {"bias": np.full(3, np.inf, np.float32)},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"space": "pixels"},
        {"rejection": Rejection(np.zeros(3, np.float32), np.zeros(3, np.float32), 0.0)},
        {"rejection": Rejection(np.zeros(2, np.float32), np.zeros(2, np.float32), 0.0)},
        {"rejection": Rejection(np.zeros(2), np.zeros(3), 0.0)},
        {"rejection": Rejection(np.zeros(2, np.float32), np.zeros(3, np.float32), float("nan"))},
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ShapeError):
        make_head(**changes)


@pytest.mark.parametrize("rows", [[[1.0, 0.0, 0.0]], [1.0, 0.0], [[np.nan, 0.0]], [[np.inf, 0.0]]])
def test_embeddings_that_do_not_fit_are_refused(rows: list[object]) -> None:
    with pytest.raises(ShapeError):
        make_head().logits(rows)


def test_another_model_or_space_is_a_mismatch() -> None:
    head = make_head()
    head.check(ColourEncoder(), space="projected")
    with pytest.raises(ModelMismatch, match="not other weights of the same name"):
        head.check(ColourEncoder(fingerprint="dd" * 32))
    with pytest.raises(ModelMismatch, match="reads projected features, and these are backbone"):
        head.check(ColourEncoder(), space="backbone")
