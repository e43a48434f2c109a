"""Search in shards: the answers of an index of the same pictures, from the files that a cluster wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clipkit.bulk import Shards, search
from clipkit.bulk.scan import SHIFT, nearest
from clipkit.bulk.shards import Row
from clipkit.bulk.storage import Storage
from clipkit.cli.main import main
from clipkit.errors import ClipkitError, IndexDamaged, ModelMismatch, QueryError
from clipkit.explore import search as search_index
from clipkit.index.image_index import ImageIndex
from tests.bulk.test_shards import unit
from tests.support.colours import ColourEncoder
from tests.support.shards import failed, write_shard, write_shards, write_vectors


def by_full_sort(vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    scores = np.einsum("nd,d->n", vectors.astype(np.float16).astype(np.float32), query)
    return np.lexsort((np.arange(len(vectors)), -scores))[:k].tolist()


def test_a_scan_gives_what_a_full_sort_gives_also_of_equal_rows(tmp_path: Path, encoder: ColourEncoder) -> None:
    vectors = unit(2500)
    vectors[1700] = vectors[30]
    vectors[31] = vectors[30]
    shards = write_vectors(tmp_path, vectors, encoder)
    queries = np.concatenate([vectors[30:31], unit(20, seed=3)])
    for k in (1, 2, 10, 3000):
        for query, found in zip(queries, nearest(shards, queries, k), strict=True):
            places = (found.ids >> SHIFT) * 1000 + (found.ids & 0xFFFFFFFF)
            assert places.tolist() == by_full_sort(vectors, query, k)


@pytest.mark.parametrize("query", ["red", "red OR blue", "NOT red", "red + blue", "green - 0.5:red", "cyan AND white"])
def test_shards_answer_as_an_index_of_the_same_pictures(
    query: str, tmp_path: Path, photos: Path, encoder: ColourEncoder
) -> None:
    shards = write_shards(tmp_path / "out", photos, encoder)
    index = ImageIndex.create(photos, encoder)
    index.update()
    facts = [
        [(hit.path, hit.file, hit.relevance, round(hit.score, 6)) for hit in hits]
        for hits in (search(shards, query, 5, encoder=encoder), search_index(index, query, 5, encoder=encoder))
    ]
    assert facts[0] == facts[1]


def test_a_row_that_failed_or_is_no_embedding_never_answers(tmp_path: Path, encoder: ColourEncoder) -> None:
    write_vectors(tmp_path, unit(5), encoder)
    nothing, wrong = np.full(4, np.nan, np.float32), np.full(4, 3, np.float32)
    rows = [failed("a.jpg"), *(Row(f"{v[0]}.jpg", None, 1, 1, None, None, v) for v in (nothing, wrong, 0 * wrong))]
    write_shard(Storage(tmp_path), 1, rows, 4)
    hits = search(Shards(tmp_path), "white", 100, encoder=encoder)
    assert sorted(hit.path for hit in hits) == [f"{number}.jpg" for number in range(5)]
    assert all(np.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ("date:2011", ["1.jpg"]),
        ("date:2011..2012", ["1.jpg", "2.jpg"]),
        ("size:>12MP", []),
        ("width:640 -date:2010", ["1.jpg", "2.jpg", "3.jpg"]),
        ("shape:portrait", []),
        ("type:png", []),
    ],
)
def test_filters_that_shards_know_are_kept(
    filters: str, left: list[str], tmp_path: Path, encoder: ColourEncoder
) -> None:
    shards = write_vectors(tmp_path, unit(4), encoder)
    assert sorted(hit.path for hit in search(shards, f"red {filters}", encoder=encoder)) == left


@pytest.mark.parametrize("query", ["red camera:X", "red rating:>=4", "red album:trip", "red text:invoice"])
def test_a_filter_that_shards_do_not_know_is_refused(query: str, tmp_path: Path, encoder: ColourEncoder) -> None:
    with pytest.raises(QueryError, match="shards do not know"):
        search(write_vectors(tmp_path, unit(4), encoder), query, encoder=encoder)


def test_wrong_questions_have_a_sentence_each(tmp_path: Path, encoder: ColourEncoder) -> None:
    shards = write_vectors(tmp_path, unit(4), encoder)
    with pytest.raises(QueryError, match="the query is empty"):
        search(shards, "", encoder=encoder)
    with pytest.raises(QueryError, match="filters alone"):
        search(shards, "date:2011", encoder=encoder)
    with pytest.raises(QueryError, match="0 answers"):
        search(shards, "red", 0, encoder=encoder)
    with pytest.raises(ModelMismatch, match="made with colour, not other weights"):
        search(shards, "red", encoder=ColourEncoder(fingerprint="aa" * 32))
    (tmp_path / shards.names[0]).unlink()
    with pytest.raises(ClipkitError, match="has no shards yet"):
        search(shards, "red", encoder=encoder)


def test_a_picture_that_two_runs_have_put_into_shards_answers_once(
    tmp_path: Path, photos: Path, encoder: ColourEncoder
) -> None:
    write_shards(tmp_path / "out", photos, encoder)
    shards = write_shards(tmp_path / "out", photos, encoder, names=["red.png"], first=7)
    assert [hit.path for hit in search(shards, "red", 3, encoder=encoder)].count("red.png") == 1


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(name: str, **options: object) -> ColourEncoder:
        return ColourEncoder()

    monkeypatch.setattr("clipkit.models.load.load_encoder", load)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("told")
def test_the_command_prints_shards_as_it_prints_an_index(
    tmp_path: Path, photos: Path, encoder: ColourEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "out", photos, encoder)
    assert main(["search", "red", "out", "-t", "2"]) == 0
    assert capfd.readouterr().out.splitlines()[0] == "1.0000\tphotos/red.png"
    assert main(["search", "red", "out", "-t", "1", "--json"]) == 0
    line = json.loads(capfd.readouterr().out)
    assert list(line) == ["score", "relevance", "path", "file"]
    assert (line["path"], line["file"]) == ("red.png", str(photos / "red.png"))
    assert main(["search", "-f", "red", "out", "--in", "nowhere"]) == 0
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("told")
def test_the_command_refuses_what_is_of_an_index(
    tmp_path: Path, photos: Path, encoder: ColourEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "out", photos, encoder, source="s3://bucket/photos")
    for option in (["--save", "x"], ["--saved"], ["--exclude-dir", "raw"], ["--index", "here"]):
        assert main(["search", "red", "out", *option]) == 2
        assert f"{option[0]} is for an index" in capfd.readouterr().err
    assert main(["search", "red", "out", "--copy-to", "there"]) == 1
    assert "the pictures lie in s3://bucket/photos, not on this machine" in capfd.readouterr().err
    assert main(["search", "red", str(photos), "--build", "ivf"]) == 2
    (tmp_path / "out" / Shards("out").names[0]).write_bytes(b"PAR1")
    assert main(["search", "red", "out"]) == IndexDamaged.exit_code
