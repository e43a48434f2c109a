"""Approximate search against exact search, and what becomes of it when the index changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipkit.search.inverted_file import FEW, MAX_K, InvertedFile, Quality, carry, covers, lists_for
from clipkit.search.vectors import Neighbors, part

D = 32
N = 4000


def clustered(n: int, seed: int) -> np.ndarray:
    """Rows around 60 directions, float32: what k-means can sort, as pictures are and random rows are not."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, D))
    matrix = centres[rng.integers(60, size=n)] + 0.4 * rng.standard_normal((n, D))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def neighbors_of(ids: np.ndarray, matrix: np.ndarray) -> Neighbors:
    return Neighbors.build([(ids, matrix)], D)


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    matrix = clustered(N, 0).astype(np.float16)
    matrix[500:540] = matrix[7]
    return matrix


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.arange(N, dtype=np.int64) * 3 + 5


@pytest.fixture(scope="module")
def base(ids: np.ndarray, matrix: np.ndarray) -> Neighbors:
    return neighbors_of(ids, matrix)


@pytest.fixture(scope="module")
def texts() -> np.ndarray:
    return clustered(100, 1)


@pytest.fixture(scope="module")
def inverted(base: Neighbors, texts: np.ndarray) -> InvertedFile:
    return InvertedFile.build(base, texts)


@pytest.fixture
def saved(tmp_path: Path, base: Neighbors, inverted: InvertedFile) -> Path:
    inverted.save(tmp_path / "a")
    return tmp_path / "a"


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def test_the_measured_recall_is_that_of_a_search(base: Neighbors, inverted: InvertedFile, texts: np.ndarray) -> None:
    quality = inverted.quality
    assert (quality.nlist, quality.queries, quality.rows) == (lists_for(N), 100, N)
    assert 0 < quality.nprobe <= quality.nlist // 4
    assert quality.recall >= 0.98
    found = inverted.search(base, texts, 10)
    assert found is not None
    assert recall(found[1], base.search(texts, 10)[1]) == pytest.approx(quality.recall, abs=0.005)


def test_scores_are_exact_and_ties_come_in_the_order_of_ids(
    base: Neighbors, inverted: InvertedFile, matrix: np.ndarray
) -> None:
    query = matrix[7:8].astype(np.float32)
    found, exact = inverted.search(base, query, 10), base.search(query, 10)
    assert found is not None
    np.testing.assert_array_equal(found[0], exact[0])
    assert (np.diff(found[1][0]) > 0).all()  # forty rows tie


def test_rows_that_are_filtered_out_do_not_answer(
    base: Neighbors, inverted: InvertedFile, ids: np.ndarray, texts: np.ndarray
) -> None:
    only, without = ids[::2], ids[::8]
    found, exact = (
        inverted.search(base, texts, 10, only=only, without=without),
        base.search(texts, 10, only=only, without=without),
    )
    assert found is not None
    assert set(found[1].ravel().tolist()) <= set(only.tolist()) - set(without.tolist())
    assert recall(found[1], exact[1]) >= 0.97


def test_few_rows_and_many_answers_are_for_exact_search(
    base: Neighbors, inverted: InvertedFile, ids: np.ndarray, texts: np.ndarray
) -> None:
    assert inverted.search(base, texts, 10, only=ids[: int(FEW * N)]) is None
    assert inverted.search(base, texts, MAX_K + 1) is None
    assert inverted.search(base, texts, 10, only=ids[:0]) is None


def test_random_rows_cannot_be_sorted_into_lists() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, D)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    quality = InvertedFile.build(neighbors_of(np.arange(3000), rows.astype(np.float16)), rows[:50]).quality
    assert quality.nprobe == 0
    assert quality.recall < 0.98


def test_what_was_saved_answers_the_same(
    saved: Path, base: Neighbors, inverted: InvertedFile, texts: np.ndarray
) -> None:
    loaded = InvertedFile.load(saved, base)
    assert loaded is not None
    first, second = inverted.search(base, texts, 10), loaded.search(base, texts, 10)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first[1], second[1])
    assert loaded.quality == inverted.quality
    assert covers(saved) == (N, N)


def test_new_rows_are_searched_exactly_and_rows_that_are_gone_do_not_answer(
    saved: Path, ids: np.ndarray, matrix: np.ndarray, texts: np.ndarray
) -> None:
    """Rows 0-49 are gone, row 50 has another vector, 100 are new, and one of them is a text's own."""
    fresh = clustered(100, 5).astype(np.float16)
    fresh[40] = texts[3]
    rows = np.concatenate([matrix[50:], fresh])
    rows[0] = texts[4]
    after = neighbors_of(np.concatenate([ids[50:], ids[-1] + 1 + np.arange(100)]), rows)
    carry(saved, saved.with_name("b"), after)
    loaded = InvertedFile.load(saved.with_name("b"), after)
    assert loaded is not None
    assert covers(saved.with_name("b")) == (N - 51, N)
    assert len(loaded.uncovered) == 101
    found, exact = loaded.search(after, texts, 10), after.search(texts, 10)
    assert found is not None
    assert found[1][3, 0] == ids[-1] + 41
    assert found[1][4, 0] == ids[50]
    assert recall(found[1], exact[1]) >= 0.97
    assert not part(saved, "ivf").exists()  # there is one, and it belongs to the newer files


@pytest.mark.parametrize("suffix", ["ivf", "members", "ann"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_damaged_file_is_none(saved: Path, base: Neighbors, suffix: str, damage: str) -> None:
    file = part(saved, suffix)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    assert InvertedFile.load(saved, base) is None
    carry(saved, saved.with_name("b"), base)
    assert InvertedFile.load(saved.with_name("b"), base) is None


def test_files_of_another_matrix_are_none(saved: Path, ids: np.ndarray, matrix: np.ndarray) -> None:
    assert InvertedFile.load(saved, neighbors_of(ids[:100], matrix[:100])) is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"nlist": 1}', '{"nlist":"a","nprobe":1,"recall":1,"queries":1,"rows":1}']
)
def test_a_quality_that_cannot_be_is_none(text: str) -> None:
    assert Quality.parse(text) is None


def test_a_quality_reads_what_it_writes() -> None:
    quality = Quality(64, 3, 0.985, 478, 4000)
    assert Quality.parse(str(quality)) == quality
