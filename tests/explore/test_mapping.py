"""Maps: alike pictures lie together, clusters have names, and the page holds all it needs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clipkit.cli.main import main
from clipkit.errors import ClipkitError, QueryError
from clipkit.explore import mapping
from clipkit.explore.mapping import OUTLIER, Map, find_clusters, lay_out, map_collection, name_clusters
from clipkit.index.image_index import ImageIndex
from clipkit.output import map_html
from clipkit.output.map_html import HEAD, write_map
from tests.support.colours import COLOURS, ColourEncoder, paint


@pytest.fixture
def album(tmp_path: Path, encoder: ColourEncoder) -> ImageIndex:
    """Twelve reddish, twelve greenish and twelve bluish pictures."""
    root = tmp_path / "album"
    for name in ("red", "green", "blue"):
        for number in range(12):
            colour = tuple(max(0, value - 3 * number) if value else number for value in COLOURS[name])
            paint(root / name / f"{number}.png", colour)
    index = ImageIndex.create(root, encoder)
    index.update()
    return index


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A vocabulary that the encoder knows."""
    found = ("red", "green", "blue")
    monkeypatch.setattr("clipkit.explore.relevance.vocabulary", lambda: found)
    monkeypatch.setattr(mapping, "vocabulary", lambda: found)
    return found


def test_alike_pictures_lie_in_one_cluster_that_is_called_so(
    album: ImageIndex, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "SMALLEST", 9)
    found = map_collection(album)
    assert sorted(found.paths) == sorted(album.paths)
    assert found.positions.min() >= 0
    assert found.positions.max() <= 1
    for path, cluster in zip(found.paths, found.clusters.tolist(), strict=True):
        if cluster != OUTLIER:
            assert found.names[cluster] == path.split("/")[0]
    assert len(found.outliers) == int((found.clusters == OUTLIER).sum()) < 9
    assert set(found.names) == {"red", "green", "blue"}


def test_of_many_pictures_some_are_laid_out_and_the_others_lie_between_them(
    album: ImageIndex, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "LANDMARKS", 30)
    monkeypatch.setattr(mapping, "BLOCK", 7)
    found = map_collection(album)
    assert len(found) == 36
    for name in ("red", "green", "blue"):
        rows = [row for row, path in enumerate(found.paths) if path.startswith(name)]
        own = np.median(found.positions[rows], axis=0)
        spread = np.linalg.norm(found.positions[rows] - own, axis=1).max()
        others = np.linalg.norm(np.delete(found.positions, rows, axis=0) - own, axis=1).min()
        assert spread < others


def test_the_same_seed_gives_the_same_map(album: ImageIndex) -> None:
    first, second = map_collection(album), map_collection(album)
    np.testing.assert_array_equal(first.positions, second.positions)
    assert first.names == second.names


@pytest.mark.parametrize("count", [1, 2, 4, 5, 11])
def test_a_few_pictures_have_a_map_too(tmp_path: Path, encoder: ColourEncoder, count: int) -> None:
    for number in range(count):
        paint(tmp_path / f"{number}.png", (20 * number, 255 - 20 * number, 90))
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    found = map_collection(index)
    assert found.positions.shape == (count, 2)
    assert np.isfinite(found.positions).all()
    assert len(found.names) == found.clusters.max() + 1


def test_an_index_without_pictures_is_an_error(tmp_path: Path, encoder: ColourEncoder) -> None:
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    with pytest.raises(QueryError, match="no pictures are indexed"):
        map_collection(index)


def test_clusters_are_numbered_from_the_largest() -> None:
    rng = np.random.default_rng(0)
    sizes, centers = (10, 40, 20), ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    points = [rng.normal(center, 0.01, (size, 2)) for size, center in zip(sizes, centers, strict=True)]
    layout = np.concatenate([*points, [[5.0, 5.0]]]).astype(np.float32)
    found = find_clusters(layout)
    assert found[-1] == OUTLIER
    counts = np.bincount(found[found >= 0])
    assert list(counts) == sorted(counts, reverse=True)


def test_no_two_clusters_have_one_name(words: tuple[str, ...], encoder: ColourEncoder) -> None:
    phrases = encoder.encode_texts(words)
    vectors = np.concatenate([np.repeat(phrases[:1], 6, axis=0), np.repeat(phrases[:2].mean(axis=0)[None], 4, axis=0)])
    vectors[6:] = phrases[0] * 0.8 + phrases[1] * 0.6  # also more red than anything else
    clusters = np.array([0] * 6 + [1] * 4)
    first, second = name_clusters(vectors.astype(np.float16), clusters, phrases)
    assert first == "red"
    assert second == "green"


def test_umap_lays_out_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("umap")

    class UMAP:
        def __init__(self, *, n_neighbors: int, random_state: int) -> None:
            assert (n_neighbors, random_state) == (5, 3)

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            return rows[:, :2]

    module.UMAP = UMAP  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setattr(mapping, "find_spec", lambda _: module)
    rows = np.eye(6, 4, dtype=np.float32)
    np.testing.assert_array_equal(lay_out(rows, 3), rows[:, :2])


def data_of(file: Path) -> dict[str, list[object]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, list[object]] = json.loads(found[1])
    return data


def a_map(*paths: str) -> Map:
    count = len(paths)
    positions = np.linspace(0, 1, 2 * count, dtype=np.float32).reshape(-1, 2)
    return Map(np.arange(count), paths, positions, np.zeros(count, np.int64), ("red",), ())


def test_the_command_writes_one_file_with_thumbnails(
    album: ImageIndex, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: ColourEncoder())
    out = tmp_path / "map.html"
    assert main(["map", str(album.root), "--out", str(out), "--engine", "torch"]) == 0
    assert "shows 36 pictures (36 with a thumbnail)" in capfd.readouterr().err
    page = out.read_text()
    assert page.startswith(HEAD)
    assert not re.search(r"https?://", page)
    data = data_of(out)
    assert sorted(map(str, data["paths"])) == sorted(album.paths)
    assert len(data["thumbs"]) == 36
    assert all(0 <= int(str(value)) <= map_html.UNIT for value in data["x"] + data["y"])


def test_thumbnails_end_at_their_limit_and_what_cannot_be_read_is_a_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        paint(tmp_path / f"{number}.png", (40 * number, 0, 0))
    (tmp_path / "3.png").write_bytes(b"no picture")
    found = a_map(*(f"{number}.png" for number in range(6)))
    assert write_map(found, tmp_path, tmp_path / "all.html", title="x") == 5
    assert write_map(found, tmp_path, tmp_path / "two.html", title="x", most=0) == 0
    one = len(str(data_of(tmp_path / "all.html")["thumbs"][0]))
    monkeypatch.setattr(map_html, "MAX_BYTES", 3 * one)
    assert write_map(found, tmp_path, tmp_path / "few.html", title="x") <= 3


def test_a_name_cannot_leave_the_data_it_stands_in(tmp_path: Path) -> None:
    write_map(a_map("</script><img src=x onerror=alert(1)>.png"), tmp_path, tmp_path / "map.html", title="<b>")
    page = (tmp_path / "map.html").read_text()
    assert "<img src=x" not in page
    assert "<b>" not in page
    assert data_of(tmp_path / "map.html")["paths"] == ["</script><img src=x onerror=alert(1)>.png"]


def test_only_an_earlier_map_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    write_map(a_map("a.png"), tmp_path, out, title="first")
    write_map(a_map("a.png"), tmp_path, out, title="second")
    assert "second" in out.read_text()
    out.write_text("mine")
    with pytest.raises(ClipkitError, match="is there already, and no map"):
        write_map(a_map("a.png"), tmp_path, out, title="third")
    assert out.read_text() == "mine"
