"""Exact search against a full sort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipkit.search.vectors import MANY, Neighbors

D = 32


def rows(n: int, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float16)


def full_sort(queries: np.ndarray, ids: np.ndarray, matrix: np.ndarray, k: int) -> np.ndarray:
    scores = np.einsum("qd,nd->qn", queries.astype(np.float64), matrix.astype(np.float64))  # equal rows stay equal
    return np.stack([ids[np.lexsort((ids, -row))[:k]] for row in scores])


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    matrix = rows(3000)
    matrix[500:700] = matrix[7]  # pictures with equal bytes have equal rows
    return matrix


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.arange(3000, dtype=np.int64) * 3 + 5


@pytest.fixture(scope="module")
def neighbors(ids: np.ndarray, matrix: np.ndarray) -> Neighbors:
    return Neighbors.build([(ids[:1000], matrix[:1000]), (ids[1000:], matrix[1000:])], D)


@pytest.mark.parametrize("count", [1, 3, MANY, 50])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_the_nearest_are_those_of_a_full_sort(
    neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray, count: int, k: int
) -> None:
    queries = rows(count, seed=1).astype(np.float32)
    queries[0] = matrix[7]  # two hundred pictures tie for the first place
    scores, found = neighbors.search(queries, k)
    np.testing.assert_array_equal(found, full_sort(queries, ids, matrix, k))
    assert (np.diff(scores, axis=1) <= 0).all()


def test_ties_for_the_last_place_are_broken_by_id(neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray) -> None:
    _, found = neighbors.search(matrix[7:8].astype(np.float32), 20)
    assert found[0].tolist() == [int(ids[7]), *ids[500:519].tolist()]


@pytest.mark.parametrize("left_out", ["anything", "the nearest"])
def test_a_filter_that_leaves_most_pictures_loses_none(
    left_out: str, neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray
) -> None:
    queries = rows(3, seed=1).astype(np.float32)
    is_left = np.arange(3000) % 4 > 0
    if left_out == "the nearest":  # of the first query: too few remain of what is asked of all
        is_left = np.ones(3000, bool)
        is_left[np.argsort(-(matrix.astype(np.float32) @ queries[0]))[:1000]] = False
    _, found = neighbors.search(queries, 10, only=ids[is_left])
    np.testing.assert_array_equal(found, full_sort(queries, ids[is_left], matrix[is_left], 10))


@pytest.mark.parametrize("count", [2, MANY])
def test_filters_are_applied_before_the_search(
    neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray, count: int
) -> None:
    queries = rows(count, seed=2).astype(np.float32)
    only = ids[::7]
    without = ids[::14]
    left = np.isin(ids, only) & ~np.isin(ids, without)
    _, found = neighbors.search(queries, 12, only=only, without=without)
    np.testing.assert_array_equal(found, full_sort(queries, ids[left], matrix[left], 12))


@pytest.mark.parametrize("step", [1, 3])
def test_ids_without_and_with_gaps_are_filtered_alike(step: int, matrix: np.ndarray) -> None:
    numbers = np.arange(len(matrix), dtype=np.int64) * step + 5
    neighbors = Neighbors(numbers, D, rows=matrix)
    drawn = np.random.default_rng(4).integers(-20, len(matrix) * step + 50, 900)  # some twice, some that have no row
    only, without = drawn[:600], drawn[500:]
    expected = np.isin(numbers, only) & ~np.isin(numbers, without)
    np.testing.assert_array_equal(neighbors.allowed(only=only, without=without), expected)
    np.testing.assert_array_equal(neighbors.allowed(only=None, without=without), ~np.isin(numbers, without))
    assert neighbors.allowed(only=None, without=without[:0]) is None
    nothing = Neighbors(numbers[:0], D, rows=matrix[:0]).allowed(only=only, without=without)
    assert nothing is not None
    assert nothing.tolist() == []


def test_k_is_cut_to_what_is_there(neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray) -> None:
    query = matrix[:1].astype(np.float32)
    assert neighbors.search(query, 9999)[1].shape == (1, 3000)
    assert neighbors.search(query, 5, only=ids[:2])[1].shape == (1, 2)
    assert neighbors.search(query, 5, only=ids[:0])[1].shape == (1, 0)
    assert Neighbors.build([], D).search(query, 5)[1].shape == (1, 0)


def test_scores_are_cosines(neighbors: Neighbors, matrix: np.ndarray) -> None:
    query = rows(1, seed=3).astype(np.float32)
    scores, _ = neighbors.search(query, 3000)
    np.testing.assert_allclose(scores[0], np.sort((query @ matrix.astype(np.float32).T)[0])[::-1], atol=1e-6)


def test_what_is_saved_is_opened_again(
    tmp_path: Path, neighbors: Neighbors, matrix: np.ndarray, ids: np.ndarray
) -> None:
    prefix = tmp_path / "folder" / "index-1-ab"
    neighbors.save(prefix)
    again = Neighbors.load(prefix, D)
    assert again is not None
    np.testing.assert_array_equal(again.rows(), matrix)
    np.testing.assert_array_equal(again.ids, ids)
    assert sorted(file.suffix for file in prefix.parent.iterdir()) == [".faiss", ".ids", ".json"]


@pytest.mark.parametrize("suffix", ["faiss", "ids", "json"])
@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, neighbors: Neighbors, suffix: str, damage: str) -> None:
    prefix = tmp_path / "index-1-ab"
    neighbors.save(prefix)
    file = tmp_path / f"index-1-ab.{suffix}"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if damage != "missing":
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    assert Neighbors.load(prefix, D) is None


def test_a_cache_that_was_dropped_after_it_was_opened_still_answers(
    tmp_path: Path, neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray
) -> None:
    neighbors.save(tmp_path / "x")
    opened = Neighbors.load(tmp_path / "x", D)
    assert opened is not None
    (tmp_path / "x.faiss").unlink()
    queries = rows(3, seed=5).astype(np.float32)
    assert opened.search(queries, 10)[1].tolist() == full_sort(queries, ids, matrix, 10).tolist()


def test_a_cache_of_another_width_is_no_cache(tmp_path: Path, neighbors: Neighbors) -> None:
    neighbors.save(tmp_path / "x")
    assert Neighbors.load(tmp_path / "x", D + 1) is None


@pytest.mark.gpu
def test_the_gpu_gives_the_answers_of_the_cpu(neighbors: Neighbors, ids: np.ndarray, matrix: np.ndarray) -> None:
    import faiss

    if not faiss.get_num_gpus():
        pytest.skip("no CUDA device")
    queries = rows(5, seed=4).astype(np.float32)
    scores, found = neighbors.search(queries, 10)
    np.testing.assert_array_equal(found, full_sort(queries, ids, matrix, 10))
    np.testing.assert_allclose(scores[0, 0], (queries @ matrix.astype(np.float32).T)[0].max(), atol=1e-3)


class _FakeGpu:
    """FAISS's border to a CUDA device: what it is given, in half precision, answered by the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: float = np.inf) -> None:
        import faiss

        self.temp_bytes: list[int] = []
        self.searches = 0
        fake = self

        class Resources:
            def setTempMemory(self, size: int) -> None:  # noqa: N802
                fake.temp_bytes.append(size)

        class Flat(faiss.IndexFlatIP):
            def __init__(self, resources: Resources, dim: int, config: object) -> None:
                super().__init__(dim)
                assert config.useFloat16  # type: ignore[attr-defined]

            def add(self, rows: np.ndarray) -> None:
                if self.ntotal + len(rows) > room:
                    raise RuntimeError("Error in allocMemory\nout of memory")
                super().add(rows)

            def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
                fake.searches += 1
                scores, found = super().search(queries, k)
                return np.asarray(scores).astype(np.float16), found[:, ::-1]

        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatIP", Flat, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatConfig", type("Config", (), {}), raising=False)


def test_a_gpu_answers_as_the_cpu_within_bounded_memory(
    ids: np.ndarray, matrix: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = _FakeGpu(monkeypatch)
    own = Neighbors.build([(ids, matrix)], D)
    queries = rows(20, seed=4).astype(np.float32)
    np.testing.assert_array_equal(own.search(queries, 10)[1], full_sort(queries, ids, matrix, 10))
    assert gpu.searches == 1
    assert len(gpu.temp_bytes) == 1
    assert gpu.temp_bytes[0] <= 1 << 28
    own.search(queries, 2100)  # above FAISS's limit on a GPU
    own.search(queries, 10, only=ids[:50])
    assert gpu.searches == 1


def test_a_gpu_without_room_leaves_the_search_to_the_cpu_with_a_sentence(
    ids: np.ndarray, matrix: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = _FakeGpu(monkeypatch, room=1000)
    own = Neighbors.build([(ids, matrix)], D)
    queries = rows(3, seed=4).astype(np.float32)
    with pytest.warns(UserWarning, match="the GPU cannot search 3,000 vectors, so the CPU does: out of memory"):
        _, found = own.search(queries, 10)
    np.testing.assert_array_equal(found, full_sort(queries, ids, matrix, 10))
    own.search(queries, 10)  # without a second warning, which would be an error
    assert gpu.searches == 0
    assert len(gpu.temp_bytes) == 1
