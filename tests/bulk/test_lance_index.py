"""Index beside shards: always rescored, never silently wrong, and measured on queries that lie far from all rows."""

from __future__ import annotations

import builtins
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipkit.bulk import Shards, measure_recall, prompts, search
from clipkit.bulk.lance_index import LEAST_ROWS, POINTER, LanceIndex, build, build_if_due, read_built, write_built
from clipkit.bulk.scan import nearest
from clipkit.bulk.shards import Row
from clipkit.bulk.storage import Storage
from clipkit.cli.main import main
from clipkit.errors import ClipkitError, IndexDamaged
from tests.support.colours import ColourEncoder
from tests.support.shards import failed, write_shard, write_vectors

lance = pytest.importorskip("lance", reason="pip install 'clipkit[lance]'")
DIM = 64


class WideEncoder(ColourEncoder):
    """Texts that lie far from all pictures, as CLIP's do."""

    dim = DIM

    def encode_texts(self, texts: object) -> np.ndarray:
        return off_the_manifold(len(list(texts)))  # type: ignore[call-overload]


def clustered(n: int, seed: int = 0) -> np.ndarray:
    """Rows about 200 centres that lie in half of the dimensions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((200, DIM)).astype(np.float32)
    centres[:, DIM // 2 :] *= 0.2
    rows = centres[rng.integers(200, size=n)] + 0.5 * rng.standard_normal((n, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def off_the_manifold(n: int, seed: int = 5) -> np.ndarray:
    """Queries as texts are: a little of a centre, and more of a direction that is common to them and to no row."""
    rng = np.random.default_rng(seed)
    common = np.where(np.arange(DIM) >= DIM // 2, 1.0, 0.0) / np.sqrt(DIM // 2)
    rows = 0.4 * clustered(n, seed + 1) + 0.8 * common + 0.1 / 8 * rng.standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def encoder() -> WideEncoder:
    return WideEncoder()


@pytest.fixture
def shards(tmp_path: Path, encoder: WideEncoder) -> Shards:
    return write_vectors(tmp_path / "out", clustered(6000), encoder)


@pytest.fixture
def built(shards: Shards) -> Shards:
    build(shards, off_the_manifold(50))
    return shards


def folders(shards: Shards) -> list[str]:
    return sorted(name for name in os.listdir(shards.storage.url) if name.startswith(("lance", ".lance")))


def test_scores_and_order_are_those_of_a_scan(built: Shards) -> None:
    index, queries = LanceIndex.open(built), off_the_manifold(40, seed=9)
    assert index is not None
    pairs = list(zip(index.search(queries, 10), nearest(built, queries, 10), strict=True))
    found = [len(set(one.ids.tolist()) & set(exact.ids.tolist())) / 10 for one, exact in pairs]
    assert np.mean(found) >= 0.95
    for one, exact in pairs:
        known = dict(zip(exact.ids.tolist(), exact.scores.tolist(), strict=True))
        same = {id_: score for id_, score in zip(one.ids.tolist(), one.scores.tolist(), strict=True) if id_ in known}
        assert same == {id_: known[id_] for id_ in same}  # to the last bit: scored by the same sum
        assert (np.diff(one.scores) <= 0).all()


def test_equal_rows_come_in_the_order_of_the_shards(tmp_path: Path, encoder: WideEncoder) -> None:
    rows = clustered(3000)
    rows[[5, 1500, 2999]] = rows[700]
    shards = write_vectors(tmp_path, rows, encoder)
    build(shards, off_the_manifold(20))
    index = LanceIndex.open(shards)
    assert index is not None
    (found,) = index.search(rows[700:701], 4)
    assert found.ids.tolist() == nearest(shards, rows[700:701], 4)[0].ids.tolist()


def test_shards_that_came_later_are_scanned_beside_it(built: Shards, encoder: WideEncoder) -> None:
    new = clustered(1500, seed=3)
    write_vectors(Path(built.storage.url), new, encoder, first=6)
    index = LanceIndex.open(built)
    assert index is not None
    assert len(index.fresh) == 2
    (found,) = index.search(new[7:8], 3)
    assert found.ids[0] == (6 << 32) + 7
    assert build_if_due(built, lambda: off_the_manifold(20)).rows == 7500
    assert len(folders(built)) == 2  # the old index is gone


@pytest.mark.parametrize("change", ["made again", "gone"])
def test_an_index_of_other_shards_does_not_answer(change: str, built: Shards, encoder: WideEncoder) -> None:
    if change == "gone":
        (Path(built.storage.url) / built.names[2]).unlink()
    else:
        write_vectors(Path(built.storage.url), clustered(1000, seed=8), encoder)  # the first shard, as another
    said: list[str] = []
    assert LanceIndex.open(built, said.append) is None
    assert "of other shards" in said[0]
    assert f"clipkit search --build ivf {built.storage.url}" in said[0]
    query = off_the_manifold(1)
    said.clear()
    hits = search(built, "anything", 5, encoder=encoder, notify=said.append)
    assert len(said) == 1
    assert [hit.id for hit in hits] == nearest(built, encoder.encode_texts(["x"]), 5)[0].ids.tolist()
    assert build_if_due(built, lambda: query).rows == (5000 if change == "gone" else 6000)


def test_an_index_that_is_gone_is_told_and_one_that_is_damaged_is_an_error(built: Shards) -> None:
    folder = Path(built.storage.url) / folders(built)[0]
    index, query = LanceIndex.open(built), off_the_manifold(1)
    assert index is not None
    for file in (folder / "data").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    again = LanceIndex.open(built)
    assert again is not None
    with pytest.raises(IndexDamaged, match="cannot be read"):
        again.search(query, 10)
    shutil.rmtree(folder)
    said: list[str] = []
    assert LanceIndex.open(built, said.append) is None
    assert said[0].startswith("the index cannot be opened")
    assert build_if_due(built, lambda: query).rows == 6000


@pytest.mark.parametrize("folder", ["..", "../photos", "/", "lance-1/../.."])
def test_a_pointer_out_of_the_folder_is_none(folder: str, built: Shards, tmp_path: Path) -> None:
    before = read_built(built)
    assert before is not None
    write_built(built, replace(before, folder=folder))
    assert read_built(built) is None
    assert build(built, off_the_manifold(20)).rows == 6000
    assert len(Shards(tmp_path / "out")) == 6000


def test_what_is_no_embedding_is_in_no_list(tmp_path: Path, encoder: WideEncoder) -> None:
    write_vectors(tmp_path, clustered(500), encoder)
    bad = [Row(f"{v}.jpg", None, 1, 1, None, None, np.full(DIM, v, np.float32)) for v in (np.nan, 0.0, 9.0)]
    write_shard(Storage(tmp_path), 1, [*bad, failed("a.jpg")], DIM)
    assert build(Shards(tmp_path), off_the_manifold(20)).rows == 500


def test_recall_is_measured_remembered_and_judged(built: Shards, encoder: WideEncoder) -> None:
    queries = off_the_manifold(60, seed=77)
    found = measure_recall(built, queries)
    assert found.is_good
    assert found.low <= found.recall <= found.high
    assert (found.queries, found.rows) == (60, 6000)
    index = LanceIndex.open(built)
    assert index is not None
    exact = [set(one.ids.tolist()) for one in nearest(built, queries, 10)]
    share = [len(set(one.ids.tolist()) & ids) / 10 for one, ids in zip(index.search(queries, 10), exact, strict=True)]
    assert found.recall == pytest.approx(np.mean(share), abs=1e-4)
    assert index.built.recall == found


def test_an_index_below_95_does_not_answer_until_it_is_calibrated(built: Shards, encoder: WideEncoder) -> None:
    before = read_built(built)
    assert before is not None
    low = measure_recall(built, off_the_manifold(40))
    write_built(built, replace(before, recall=replace(low, recall=0.9)))
    said: list[str] = []
    assert LanceIndex.open(built, said.append) is None
    assert said == [
        "the index finds 0.900 of the 10 nearest, less than 0.95: every row is read; "
        f"anew: clipkit search --build ivf {built.storage.url}"
    ]
    found = measure_recall(built, off_the_manifold(80, seed=11), calibrate=True)
    assert (found.queries, found.is_good) == (40, True)
    assert LanceIndex.open(built) is not None


def test_default_queries_are_different_prompts() -> None:
    texts = prompts()
    assert len(set(texts)) == 500
    assert prompts(3) == texts[:3]
    assert all(" " in text for text in texts)


def test_too_few_rows_and_no_index_have_a_sentence(tmp_path: Path, encoder: WideEncoder) -> None:
    shards = write_vectors(tmp_path, clustered(LEAST_ROWS - 1), encoder)
    with pytest.raises(ClipkitError, match="has 255 pictures, and an index needs 256"):
        build(shards, off_the_manifold(5))
    assert folders(shards) == []
    with pytest.raises(ClipkitError, match="has no index: its search is exact"):
        measure_recall(shards, off_the_manifold(5))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LanceError(IO): No space left on device (os error 28)", "nothing was changed: the disk is full"),
        ("LanceError(IO): Permission denied (os error 13)", "nothing was changed: it cannot be written"),
        ("Read-only file system (os error 30)", "nothing was changed: it cannot be written"),
    ],
)
def test_a_build_that_fails_leaves_what_was_there(
    error: str, words: str, built: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (Path(built.storage.url) / POINTER).read_bytes(), folders(built)

    def full(data: object, place: str, *args: object) -> None:
        os.mkdir(place)
        raise OSError(error)

    with monkeypatch.context() as patch:
        patch.setattr(lance, "write_dataset", full)
        with pytest.raises(ClipkitError, match=words):
            build(built, off_the_manifold(20))
    assert ((Path(built.storage.url) / POINTER).read_bytes(), folders(built)) == before
    assert LanceIndex.open(built) is not None


def test_without_the_extra_it_says_what_to_install(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., object] = builtins.__import__

    def without(name: str, *args: object, **options: object) -> object:
        if name == "lance":
            raise ImportError(name)
        return found(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClipkitError) as raised:
        build(shards, off_the_manifold(20))
    assert raised.value.hint == "pip install 'clipkit[lance]'"


def test_the_commands_build_measure_and_tell(
    shards: Shards, encoder: WideEncoder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda name, **options: encoder)
    out = shards.storage.url
    assert main(["search", "--build", "ivf", out]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("IVF_RQ of 6,000 pictures: ")
    assert main(["search", "x", out, "-t", "3"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    assert main(["info", out, "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["rows"], facts["count"], facts["search"][:6]) == (6000, 6, "IVF_RQ")
    assert main(["recall", out, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["is_good"]


def test_the_command_ends_with_1_where_recall_is_low(
    built: Shards, encoder: WideEncoder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda name, **options: encoder)
    monkeypatch.setattr(
        "clipkit.bulk.recall.shares", lambda found, exact: np.full(len(found), 0.5)
    )  # as of an index that finds half
    out = built.storage.url
    assert main(["recall", out]) == 1
    said = capfd.readouterr()
    assert said.out.startswith("recall@10  0.500")
    assert f"try: clipkit recall {out} --calibrate" in said.err
    assert main(["search", "x", out]) == 0
    assert "the index finds 0.500 of the 10 nearest" in capfd.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda name, **options: encoder)
    assert main(["recall", out, "--calibrate"]) == 0
