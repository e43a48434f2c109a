"""Approximate search of an index as pictures come, go and are forgotten; rows are written without pictures."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import pytest

from clipkit.core.folders import cache_folder
from clipkit.index.approximate import refresh_ann
from clipkit.index.image_index import ImageIndex
from clipkit.search.inverted_file import InvertedFile
from clipkit.search.vector_cache import IndexCache
from clipkit.store.records import PictureRow, ScannedFile
from tests.search.test_inverted_file import D, clustered
from tests.support.colours import ColourEncoder

N = 2000
TEXTS = clustered(60, 1)


class WideEncoder(ColourEncoder):
    dim = D


def never() -> np.ndarray:
    raise AssertionError("no texts are needed")


def put(index: ImageIndex, rows: np.ndarray, first: int) -> None:
    with index.store.transaction() as writer:
        for number, row in enumerate(rows.astype(np.float16), start=first):
            found = ScannedFile(f"{number:05d}.jpg", 40_000, number, number, number)
            writer.put(PictureRow(found, secrets.token_bytes(32), 500, 375, embedding=row.tobytes()))


def written(index: ImageIndex) -> None:
    """As at the end of every `update`."""
    IndexCache(index.store).write()


def answers(index: ImageIndex, *, exact: bool = False) -> list[list[int]]:
    index.is_exact = exact
    return [[hit.id for hit in hits] for hits in index.search_embeddings(TEXTS, 10)]


def recall(index: ImageIndex) -> float:
    pairs = zip(answers(index), answers(index, exact=True), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def files(index: ImageIndex) -> set[str]:
    return {file.suffix for file in (cache_folder() / "faiss").glob(f"{index.info.index_id}-*")}


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    (tmp_path / "photos").mkdir()
    index = ImageIndex.create(tmp_path / "photos", WideEncoder())
    put(index, clustered(N, 0), 1)
    written(index)
    return index


@pytest.fixture
def sorted_index(index: ImageIndex) -> ImageIndex:
    quality = refresh_ann(index, "ivf", lambda: TEXTS)
    assert quality is not None
    assert quality.nprobe
    return index


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries the inverted file was asked, and answered."""
    counts: list[int] = []
    search = InvertedFile.search

    def counted(self: InvertedFile, base: object, queries: np.ndarray, k: int, **filters: object) -> object:
        found = search(self, base, queries, k, **filters)  # type: ignore[arg-type]
        counts.extend([len(queries)] if found is not None else [])
        return found

    monkeypatch.setattr(InvertedFile, "search", counted)
    return counts


def test_an_ordinary_index_is_searched_exactly(index: ImageIndex) -> None:
    assert refresh_ann(index, None, never) is None
    assert files(index) == {".faiss", ".ids", ".json"}
    assert (index.info.ann, index.ann_quality) == ("auto", None)


def test_past_a_size_lists_are_made_of_themselves(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.index.approximate.AUTO_VALUES", N * D)
    assert refresh_ann(index, None, lambda: TEXTS) is not None
    assert refresh_ann(index, None, never) is None


def test_the_index_remembers_what_was_measured(sorted_index: ImageIndex, asked: list[int]) -> None:
    index = ImageIndex.open(sorted_index.root, encoder=WideEncoder())
    quality = index.ann_quality
    assert quality is not None
    assert quality.recall >= 0.98
    assert (quality.queries, quality.rows, index.info.ann) == (len(TEXTS), N, "ivf")
    assert recall(index) == pytest.approx(quality.recall, abs=0.01)
    assert asked == [len(TEXTS)]  # the exact half did not ask it
    assert refresh_ann(index, None, never) is None


def test_no_file_is_written_anew_when_the_lists_are_noted(sorted_index: ImageIndex) -> None:
    """What was noted is a revision of its own, without a changed picture."""
    info = sorted_index.info
    assert (cache_folder() / "faiss" / f"{info.index_id}-{info.revision}-{info.token}.json").exists()
    assert (cache_folder() / "faiss" / f"{info.index_id}-{info.revision}-{info.token}.ann").exists()


@pytest.mark.parametrize("is_written", [False, True])
def test_new_hidden_and_changed_pictures_count_at_once(
    sorted_index: ImageIndex, asked: list[int], is_written: bool
) -> None:
    best = answers(sorted_index, exact=True)
    put(sorted_index, TEXTS[:1], N + 1)  # a new picture that is a text's own
    put(sorted_index, TEXTS[1:2], 77)  # a known path with another content
    with sorted_index.store.transaction() as writer:
        writer.hide(best[2][:3])
    if is_written:
        written(sorted_index)
    found = answers(sorted_index)
    assert asked
    paths = sorted_index.store.paths()[1]
    assert paths[found[0][0]] == f"{N + 1:05d}.jpg"
    assert paths[found[1][0]] == "00077.jpg"
    assert not set(best[2][:3]) & {id_ for row in found for id_ in row}
    assert recall(sorted_index) >= 0.97
    with sorted_index.store.transaction() as writer:
        writer.restore(best[2][:3])
    assert answers(sorted_index)[2] == best[2]


def test_forgotten_pictures_need_no_new_lists(sorted_index: ImageIndex, asked: list[int]) -> None:
    """Their ids are given to other pictures, and the revisions before are forgotten."""
    with sorted_index.store.transaction() as writer:
        writer.delete(list(range(N - 50, N + 1)))
    put(sorted_index, TEXTS[:3], 9000)
    written(sorted_index)
    found = answers(sorted_index)
    assert asked
    assert recall(sorted_index) >= 0.97
    paths = sorted_index.store.paths()[1]
    assert [paths[row[0]] for row in found[:3]] == ["09000.jpg", "09001.jpg", "09002.jpg"]
    assert refresh_ann(sorted_index, None, never) is None


def test_lists_are_made_anew_when_a_tenth_is_in_none(sorted_index: ImageIndex) -> None:
    put(sorted_index, clustered(200, 3), N + 1)
    written(sorted_index)
    assert refresh_ann(sorted_index, None, never) is None
    put(sorted_index, clustered(100, 4), N + 201)
    written(sorted_index)
    quality = refresh_ann(sorted_index, None, lambda: TEXTS)
    assert quality is not None
    assert quality.rows == N + 300


def test_off_removes_the_lists(sorted_index: ImageIndex, asked: list[int]) -> None:
    assert refresh_ann(sorted_index, "off", never) is None
    assert files(sorted_index) == {".faiss", ".ids", ".json"}
    answers(sorted_index)
    assert not asked
    assert refresh_ann(sorted_index, None, never) is None


@pytest.mark.parametrize("suffix", ["ivf", "members", "ann"])
def test_a_damaged_file_is_searched_around_and_made_anew(
    sorted_index: ImageIndex, asked: list[int], suffix: str
) -> None:
    (file,) = (cache_folder() / "faiss").glob(f"*.{suffix}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.unlink()
    file.write_bytes(content)
    index = ImageIndex.open(sorted_index.root, encoder=WideEncoder())
    assert recall(index) == 1
    assert not asked
    assert not IndexCache(index.store).verify()
    IndexCache(index.store).write(afresh=True)
    assert IndexCache(index.store).verify()
    assert refresh_ann(index, None, lambda: TEXTS) is not None
    assert IndexCache(index.store).verify()


def test_rows_that_no_lists_suit_are_searched_exactly(tmp_path: Path, asked: list[int]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, D)).astype(np.float32)
    (tmp_path / "photos").mkdir()
    index = ImageIndex.create(tmp_path / "photos", WideEncoder())
    put(index, rows / np.linalg.norm(rows, axis=1, keepdims=True), 1)
    quality = refresh_ann(index, "ivf", lambda: TEXTS)
    assert quality is not None
    assert quality.nprobe == 0
    answers(index)
    assert not asked
    assert refresh_ann(index, None, never) is None  # not tried again before it has grown


def test_a_rebuild_keeps_the_mode(sorted_index: ImageIndex) -> None:
    ImageIndex.create(sorted_index.root, WideEncoder(), rebuild=True).update()
    assert (sorted_index.info.ann, sorted_index.ann_quality) == ("ivf", None)
