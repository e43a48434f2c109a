"""Export and import: what goes out comes back bit for bit; what does not fit is refused before anything is written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clipkit.index.import_export
import clipkit.index.vector_files
import clipkit.store.database
from clipkit.errors import ClipkitError, IndexLocked, ModelMismatch, ShapeError
from clipkit.index.image_index import ImageIndex
from clipkit.index.import_export import export, import_
from clipkit.index.vector_files import LAYOUTS, POINTS, open_layout
from tests.support.colours import COLOURS, ColourEncoder, paint, shade

ODD_NAMES = [
    os.fsdecode(b"caf\xe9.png"),
    "two\nlines.png",
    "=1+1.png",
    "tab\there.png",
    "\u00e9t\u00e9/sn\u00f6 \U0001f600.png",
]


@pytest.fixture
def index(photos: Path, encoder: ColourEncoder) -> ImageIndex:
    made = ImageIndex.create(photos, encoder)
    made.update()
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def fresh(photos: Path) -> Callable[[], Path]:
    """The photos without an index."""

    def drop() -> Path:
        for file in (photos / ".clipkit").iterdir():
            file.unlink()
        (photos / ".clipkit").rmdir()
        return photos

    return drop


def vectors(index: ImageIndex) -> dict[str, bytes]:
    return dict(zip(index.paths, (row.astype("<f2").tobytes() for row in index.embeddings), strict=True))


def rows_of(index: ImageIndex) -> dict[str, tuple[object, ...]]:
    with index.store._read() as db:
        query = "SELECT path, sha256, width, height, taken_at, state, embedding FROM images ORDER BY path"
        return {os.fsdecode(path): tuple(rest) for path, *rest in db.execute(query)}


def clip_retrieval(folder: Path, names: list[str], rows: np.ndarray, *, shards: int = 1) -> Path:
    """What clip-retrieval 2.45 leaves behind: np.save and DataFrame.to_parquet."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    digits = len(str(shards))
    for number, places in enumerate(np.array_split(np.arange(len(names)), shards)):
        part = str(number).zfill(digits)
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", rows[places])
        table = pd.DataFrame({"image_path": [names[place] for place in places], "sha256": "00" * 32, "width": 1})
        table.to_parquet(folder / "metadata" / f"metadata_{part}.parquet")
    return folder


def colours(encoder: ColourEncoder, names: list[str]) -> np.ndarray:
    return encoder.encode_texts(names).astype(np.float16)


def test_clip_retrievals_layout_is_as_clip_retrieval_writes_it(index: ImageIndex, target: Path) -> None:
    assert export(index, target) == 8
    rows = np.load(target / "img_emb" / "img_emb_0.npy")
    table = pd.read_parquet(target / "metadata" / "metadata_0.parquet")
    assert rows.dtype == np.float16
    assert table["image_path"].tolist() == index.paths
    np.testing.assert_array_equal(rows.astype(np.float32), index.embeddings)
    assert table["width"].tolist() == [16] * 8
    assert table["sha256"][0] == hashlib.sha256((index.root / index.paths[0]).read_bytes()).hexdigest()


def test_shards_are_bounded_and_padded_as_clip_retrieval_pads(
    index: ImageIndex, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(13):
        paint(index.root / f"more/{number}.png", shade(number))
    index.update()
    monkeypatch.setattr(clipkit.index.vector_files, "SHARD_ROWS", 2)
    monkeypatch.setattr(clipkit.store.database, "BLOCK", 5)
    assert export(index, target) == 21
    names = sorted(file.name for file in (target / "img_emb").iterdir())
    assert names == [f"img_emb_{number:02}.npy" for number in range(11)]
    shapes = [np.load(target / "img_emb" / name).shape for name in names]
    assert shapes == [(2, 4)] * 10 + [(1, 4)]
    tables = [pd.read_parquet(target / "metadata" / f"metadata_{n:02}.parquet") for n in range(11)]
    assert pd.concat(tables)["image_path"].tolist() == index.paths
    np.testing.assert_array_equal(
        np.concatenate([np.load(target / "img_emb" / name) for name in names]), index.embeddings
    )


def test_pandas_reads_the_parquet_table(index: ImageIndex, target: Path) -> None:
    export(index, target, layout="parquet")
    table = pd.read_parquet(target / "embeddings.parquet")
    assert table["path"].tolist() == index.paths
    np.testing.assert_array_equal(np.stack(list(table["embedding"])), index.embeddings)
    assert set(table["model"]) == {"colour"}
    assert table[["width", "height"]].to_numpy().tolist() == [[16, 16]] * 8
    assert table["taken_at"].isna().all()


def test_numpy_reads_the_npy_layout(index: ImageIndex, target: Path) -> None:
    export(index, target, layout="npy")
    rows = np.load(target / "embeddings.npy")
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, index.embeddings)
    assert (target / "paths.txt").read_text().splitlines() == index.paths


def test_only_pictures_that_answer_are_exported(index: ImageIndex, target: Path) -> None:
    (index.root / "red.png").unlink()
    (index.root / "bad.png").write_bytes(b"no picture")
    index.update()
    assert export(index, target) == 7
    assert "red.png" not in pd.read_parquet(target / "metadata" / "metadata_0.parquet")["image_path"].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_comes_back_bit_for_bit(
    index: ImageIndex, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path], layout: str
) -> None:
    before = rows_of(index)
    export(index, target, layout=layout)
    report = import_(target, fresh(), encoder)
    after = rows_of(ImageIndex.open(index.root))
    if layout == "npy":  # carries names and vectors alone
        before = {path: (row[0], None, None, None, *row[4:]) for path, row in before.items()}
    assert after == before
    assert (report.imported, report.unchanged, report.missing, report.changed, report.failed) == (8, 0, (), (), ())
    assert (report.checked, report.agreement) == (8, pytest.approx(1, abs=1e-3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_imported_index_answers_and_has_nothing_left_to_do(
    index: ImageIndex, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path], layout: str
) -> None:
    export(index, target, layout=layout)
    import_(target, fresh(), encoder)
    again = ImageIndex.open(index.root, encoder=encoder)
    assert again.search("red", k=1)[0].path == "red.png"
    assert again.update().unchanged == 8


@pytest.mark.parametrize("layout", ["clip-retrieval", "parquet"])
def test_names_that_are_no_text_come_back(
    photos: Path, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path], layout: str
) -> None:
    for number, name in enumerate(ODD_NAMES):
        paint(photos / f"{number}.png", shade(number * 50))
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / name)
    index = ImageIndex.create(photos, encoder)
    index.update()
    before = vectors(index)
    assert set(ODD_NAMES) <= before.keys()
    export(index, target, layout=layout)
    import_(target, fresh(), encoder)
    assert vectors(ImageIndex.open(photos)) == before


def test_a_list_of_names_keeps_bytes_and_refuses_line_breaks_by_name(
    index: ImageIndex, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path]
) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (index.root / "red.png").rename(index.root / name)
    index.update()
    before = vectors(index)
    export(index, target, layout="npy")
    import_(target, fresh(), encoder)
    made = ImageIndex.open(index.root, encoder=encoder)
    assert vectors(made) == before
    (index.root / name).rename(index.root / "two\nlines.png")
    made.update()
    with pytest.raises(ClipkitError, match=r"'two\\nlines.png' has a line break"):
        export(made, target.with_name("second"), layout="npy")
    assert not target.with_name("second").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_leaves_nothing_that_looks_whole(
    index: ImageIndex, target: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    files_of = {"clip-retrieval": 3, "parquet": 2, "npy": 3, "lance": 5, "qdrant": 4}
    for allowed in range(6):
        left = [allowed]

        def full(_: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        before = sorted(target.parent.iterdir())
        if allowed >= files_of[layout]:
            export(index, target, layout=layout)
            break
        with pytest.raises(ClipkitError, match="No space left on device; nothing was exported"):
            export(index, target, layout=layout)
        assert sorted(target.parent.iterdir()) == before
    assert sum(len(piece.entries) for piece in open_layout(target).pieces()) == 8


def test_a_folder_in_use_is_refused_and_an_empty_one_taken(index: ImageIndex, target: Path) -> None:
    target.mkdir()
    assert export(index, target) == 8
    before = sorted(target.rglob("*"))
    with pytest.raises(ClipkitError, match="is not free for an export"):
        export(index, target)
    assert sorted(target.rglob("*")) == before
    with pytest.raises(ClipkitError, match="no layout is called csv"):
        export(index, target.with_name("second"), layout="csv")
    (target.parent / "file").write_text("")
    with pytest.raises(ClipkitError, match="is not free"):
        export(index, target.parent / "file")


def test_an_index_that_changes_meanwhile_is_not_exported(
    index: ImageIndex, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipkit.store.database, "BLOCK", 3)
    facts = clipkit.store.database.Store.facts

    def with_a_writer(store: clipkit.store.database.Store, first: int, last: int) -> object:
        with index.store.transaction() as writer:
            writer.note("created_by", "another")
        return facts(store, first, last)

    monkeypatch.setattr(clipkit.store.database.Store, "facts", with_a_writer)
    with pytest.raises(IndexLocked, match="changed while it was exported"):
        export(index, target)
    assert not target.exists()


def test_an_empty_index_is_exported_as_such(tmp_path: Path, encoder: ColourEncoder) -> None:
    (tmp_path / "none").mkdir()
    index = ImageIndex.create(tmp_path / "none", encoder)
    for layout in LAYOUTS:
        assert export(index, tmp_path / layout, layout=layout) == 0
        with pytest.raises(ClipkitError, match="it names none"):
            import_(tmp_path / layout, tmp_path / "none", encoder)
    assert np.load(tmp_path / "npy" / "embeddings.npy").shape == (0, 4)


def test_clip_retrievals_own_folder_is_read(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    names = list(COLOURS)
    files = [str(photos / f"{name}.png") for name in names]  # absolute, as clip-retrieval writes them
    clip_retrieval(target, files, colours(encoder, names), shards=3)
    report = import_(target, photos, encoder)
    index = ImageIndex.open(photos, encoder=encoder)
    assert (report.imported, report.checked) == (8, 8)
    assert [index.search(name, k=1)[0].path for name in names] == [f"{name}.png" for name in names]
    assert index.update().unchanged == 8


def test_names_relative_to_where_the_user_stands_are_found(
    photos: Path, target: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    clip_retrieval(target, ["photos/red.png", "./photos/blue.png"], colours(encoder, ["red", "blue"]))
    assert import_(target, photos, encoder).imported == 2
    assert sorted(ImageIndex.open(photos).paths) == ["blue.png", "red.png"]


def test_names_without_a_picture_are_counted_and_named(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    (photos / "notes.txt").write_text("no picture")
    clip_retrieval(target, ["red.png", "gone.png", "notes.txt"], colours(encoder, ["red", "green", "blue"]))
    report = import_(target, photos, encoder)
    assert (report.imported, report.missing) == (1, ("gone.png", "notes.txt"))


def test_what_is_known_is_left_alone(index: ImageIndex, target: Path, encoder: ColourEncoder) -> None:
    export(index, target)
    revision = index.revision
    report = import_(target, index.root, encoder)
    assert (report.imported, report.unchanged) == (0, 8)
    assert index.revision == revision


def test_a_picture_that_changed_since_keeps_its_own_vector(
    index: ImageIndex, target: Path, encoder: ColourEncoder
) -> None:
    export(index, target)
    paint(index.root / "red.png", COLOURS["cyan"], size=(20, 20))
    index.update()
    before = vectors(index)
    paint(index.root / "blue.png", COLOURS["white"], size=(24, 24))
    report = import_(target, index.root, encoder)
    assert (report.changed, report.unchanged) == (("blue.png",), 7)
    assert vectors(index) == before


def test_a_picture_that_was_missing_comes_back(index: ImageIndex, target: Path, encoder: ColourEncoder) -> None:
    export(index, target)
    away = (index.root / "red.png").rename(index.root.parent / "red.png")
    index.update()
    assert "red.png" not in index.paths
    away.rename(index.root / "red.png")
    report = import_(target, index.root, encoder)
    assert (report.imported, report.unchanged) == (0, 8)
    assert "red.png" in index.paths


def test_an_interrupted_import_keeps_whole_batches_and_goes_on(
    index: ImageIndex, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    export(index, target)
    before = vectors(index)
    monkeypatch.setattr(clipkit.index.import_export, "COMMIT_ROWS", 3)
    seen = []

    def stop(progress: object) -> None:
        seen.append(progress)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_(target, fresh(), encoder, progress=stop)
    assert len(ImageIndex.open(index.root)) == 6
    report = import_(target, index.root, encoder)
    assert (report.imported, report.unchanged) == (2, 6)
    assert vectors(ImageIndex.open(index.root)) == before


BAD_ROWS = {
    "a NaN": (lambda rows: rows.__setitem__((2, 1), np.nan), ShapeError, "'blue.png' has length nan"),
    "an infinity": (lambda rows: rows.__setitem__((2, 1), np.inf), ShapeError, "'blue.png' has length inf"),
    "a zero row": (lambda rows: rows.__setitem__(2, 0), ShapeError, "'blue.png' has length 0"),
    "another length": (lambda rows: rows.__imul__(2), ShapeError, "'red.png' has length 2, not 1"),
    "slipped rows": (
        lambda rows: rows.__setitem__(slice(None), rows[[1, 2, 3, 0]]),
        ModelMismatch,
        "not made by colour",
    ),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_vectors_that_are_no_embeddings_are_refused_before_anything_is_written(
    photos: Path, target: Path, encoder: ColourEncoder, what: str
) -> None:
    spoil, kind, message = BAD_ROWS[what]
    names = ["red", "green", "blue", "yellow"]
    rows = colours(encoder, names)
    spoil(rows)
    clip_retrieval(target, [f"{name}.png" for name in names], rows)
    with pytest.raises(kind, match=message):
        import_(target, photos, encoder)
    assert not (photos / ".clipkit").exists()


def test_lengths_may_be_made_one_when_somebody_says_so(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    clip_retrieval(target, ["red.png", "blue.png"], colours(encoder, ["red", "blue"]) * np.float16(7))
    with pytest.raises(ShapeError) as refused:
        import_(target, photos, encoder)
    assert refused.value.hint == "--normalise"
    import_(target, photos, encoder, normalise=True)
    index = ImageIndex.open(photos)
    expected = encoder.encode_texts([path.removesuffix(".png") for path in index.paths])
    np.testing.assert_allclose(index.embeddings, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/red.png", "is not in"),
        ("../red.png", "leads out"),
        ("a/../../red.png", "leads out"),
        ("red.png\0.txt", "leads out"),
    ],
)
def test_names_that_lead_out_are_refused(
    photos: Path, target: Path, encoder: ColourEncoder, name: str, message: str
) -> None:
    clip_retrieval(target, ["red.png", name], colours(encoder, ["red", "red"]))
    with pytest.raises(ClipkitError, match=message):
        import_(target, photos, encoder)
    assert not (photos / ".clipkit").exists()


def test_a_folder_next_to_the_root_with_its_name_in_front_is_outside(
    photos: Path, target: Path, encoder: ColourEncoder
) -> None:
    clip_retrieval(target, [f"{photos}-2/red.png"], colours(encoder, ["red"]))
    with pytest.raises(ClipkitError, match="is not in"):
        import_(target, photos, encoder)


def test_another_model_is_refused(index: ImageIndex, target: Path, fresh: Callable[[], Path]) -> None:
    other = ColourEncoder(fingerprint="d1" * 32)
    other.model = "other"
    export(index, target)
    with pytest.raises(ModelMismatch, match="was made with colour, not other"):
        import_(target, index.root, other)
    (target / "clipkit.json").unlink()
    before = vectors(index)
    with pytest.raises(ModelMismatch, match="was indexed with colour, not other"):
        import_(target, index.root, other)
    assert vectors(index) == before
    export(index, target.with_name("second"))
    fresh()
    with pytest.raises(ModelMismatch, match="made with other pixels"):
        import_(target.with_name("second"), index.root, ColourEncoder(exact=True))
    assert not (index.root / ".clipkit").exists()


def test_another_width_is_refused(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    clip_retrieval(target, ["red.png"], np.eye(1, 5, dtype=np.float16))
    with pytest.raises(ShapeError, match="the vectors have 5 values, and this model makes 4"):
        import_(target, photos, encoder)


def test_one_picture_that_does_not_fit_is_named(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    names = list(COLOURS)
    rows = colours(encoder, names)
    rows[names.index("grey")] = -rows[names.index("grey")]
    clip_retrieval(target, [f"{name}.png" for name in names], rows)
    with pytest.raises(ModelMismatch, match=r"that of 'grey.png' has cosine -1.00"):
        import_(target, photos, encoder)


def test_two_vectors_for_one_picture_are_refused(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    clip_retrieval(target, ["red.png", str(photos / "red.png")], colours(encoder, ["red", "red"]))
    with pytest.raises(ClipkitError, match=r"two vectors for 'red.png'"):
        import_(target, photos, encoder)


def spoil_file(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


DAMAGE: dict[str, tuple[str, str, Callable[[bytes], bytes], str]] = {
    "a name too few": ("npy", "paths.txt", lambda data: data.partition(b"\n")[2], "8 vectors for 7 names"),
    "a name too many": ("npy", "paths.txt", lambda data: data + b"more.png\n", "there are more names"),
    "a short matrix": ("npy", "embeddings.npy", lambda data: data[:-8], "not as long as"),
    "no matrix": ("npy", "embeddings.npy", lambda data: b"hello", "cannot be read"),
    "a pickle": ("npy", "embeddings.npy", lambda data: data.replace(b"<f4", b"|O "), "cannot be read|holds object"),
    "whole numbers": ("npy", "embeddings.npy", lambda data: data.replace(b"<f4", b"<i4"), "not rows of floating point"),
    "absurd counts": (
        "npy",
        "embeddings.npy",
        lambda data: data.replace(b"(8, 4),", b"(9999999999, 4),"),
        "read|long as",
    ),
    "a short table": ("parquet", "embeddings.parquet", lambda data: data[:-20], "cannot be read"),
    "no table": ("parquet", "embeddings.parquet", lambda data: b"", "cannot be read"),
    "no facts": ("clip-retrieval", "metadata/metadata_0.parquet", lambda data: data[100:], "cannot be read"),
    "no JSON": ("parquet", "clipkit.json", lambda data: b"{", "cannot be read"),
    "another count": ("parquet", "clipkit.json", lambda data: data.replace(b'"count": 8', b'"count": 9'), "8 of 9"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_refused_in_a_sentence(
    index: ImageIndex, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path], what: str
) -> None:
    layout, name, change, message = DAMAGE[what]
    export(index, target, layout=layout)
    spoil_file(target, name, change)
    with pytest.raises(ClipkitError, match=message):
        import_(target, fresh(), encoder)
    assert not (index.root / ".clipkit").exists()


def test_a_lost_shard_is_noticed(
    index: ImageIndex, target: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipkit.index.vector_files, "SHARD_ROWS", 3)
    export(index, target)
    (target / "img_emb" / "img_emb_1.npy").unlink()
    with pytest.raises(ClipkitError, match="shard 1 lacks"):
        import_(target, index.root, encoder)
    (target / "metadata" / "metadata_1.parquet").unlink()
    with pytest.raises(ClipkitError, match="not complete: 5 of 8"):
        import_(target, index.root, encoder)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["red.png"]}, "no column embedding"),
        ({"embedding": [[1.0, 0, 0, 0]]}, "no column image_path or path"),
        ({"path": ["red.png", None], "embedding": [[1.0, 0, 0, 0]] * 2}, "that names every row"),
        ({"path": ["red.png", "blue.png"], "embedding": [[1.0, 0, 0, 0], [1.0]]}, "different widths"),
        ({"path": ["red.png", "blue.png"], "embedding": [[1.0, 0, 0, 0], None]}, "different widths"),
        ({"path": ["red.png"], "embedding": [[1, 0, 0, 0]]}, "no floating point"),
        ({"path": ["red.png"], "embedding": [["a", "b", "c", "d"]]}, "no floating point"),
        ({"path": ["red.png"], "embedding": [1.0]}, "no column embedding that holds lists"),
        (
            {"path": ["red.png"], "path_bytes": [None], "sha256": ["zz"], "embedding": [[1.0, 0, 0, 0]]},
            "cannot be read",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    photos: Path, target: Path, encoder: ColourEncoder, columns: dict[str, list[object]], message: str
) -> None:
    target.mkdir()
    pd.DataFrame(columns).to_parquet(target / "anything.parquet")
    with pytest.raises(ClipkitError, match=message):
        import_(target / "anything.parquet", photos, encoder)


def test_a_table_that_pandas_made_is_read(photos: Path, target: Path, encoder: ColourEncoder) -> None:
    target.mkdir()
    rows = encoder.encode_texts(["red", "blue"]).astype(np.float64)
    table = pd.DataFrame({"path": ["red.png", "blue.png"], "embedding": list(rows)})
    table.to_parquet(target / "mine.parquet")
    import_(target / "mine.parquet", photos, encoder)
    index = ImageIndex.open(photos, encoder=encoder)
    assert index.search("blue", k=1)[0].path == "blue.png"


def test_what_is_no_source_is_refused(photos: Path, tmp_path: Path, encoder: ColourEncoder) -> None:
    with pytest.raises(ClipkitError, match="is not there"):
        import_(tmp_path / "nowhere", photos, encoder)
    with pytest.raises(ClipkitError, match="holds no vectors"):
        import_(photos, photos, encoder)


def test_vectors_of_other_folders_are_refused(
    index: ImageIndex, target: Path, encoder: ColourEncoder, tmp_path: Path
) -> None:
    export(index, target)
    paint(tmp_path / "other" / "violet.png", (90, 0, 90))
    with pytest.raises(ClipkitError, match=r"no picture of .* is in .*other \('"):
        import_(target, tmp_path / "other", encoder)
    assert not (tmp_path / "other" / ".clipkit").exists()


def test_forged_facts_do_not_reach_the_index(
    index: ImageIndex, target: Path, encoder: ColourEncoder, fresh: Callable[[], Path]
) -> None:
    export(index, target, layout="parquet")
    table = pd.read_parquet(target / "embeddings.parquet")
    table["width"] = -5
    table["height"] = 2**40
    table.to_parquet(target / "embeddings.parquet")
    import_(target, fresh(), encoder)
    assert {row[1:3] for row in rows_of(ImageIndex.open(index.root)).values()} == {(None, None)}


def test_the_index_may_lie_elsewhere(index: ImageIndex, target: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    export(index, target)
    report = import_(target, index.root, encoder, at=tmp_path / "elsewhere")
    assert report.imported == 8
    assert vectors(ImageIndex.open(index.root, at=tmp_path / "elsewhere")) == vectors(index)


def test_an_export_says_what_made_it(index: ImageIndex, target: Path) -> None:
    export(index, target, layout="npy")
    about = json.loads((target / "clipkit.json").read_text())
    assert (about["model"], about["dim"], about["count"], about["layout"]) == ("colour", 4, 8, "npy")
    assert about["weights_sha256"] == "c0" * 32


def test_a_lance_table_holds_what_the_index_holds(index: ImageIndex, target: Path) -> None:
    lance = pytest.importorskip("lance", reason="pip install 'clipkit[lance]'")
    assert export(index, target, layout="lance") == 8
    table = lance.dataset(str(target / "pictures.lance")).to_table()
    assert table["path"].to_pylist() == index.paths
    facts = index.store.facts(1, 8).values()
    assert [bytes.fromhex(value) for value in table["sha256"].to_pylist()] == [fact[0] for fact in facts]
    assert list(zip(*(table[name].to_pylist() for name in ("width", "height", "taken_at")), strict=True)) == [
        fact[1:] for fact in facts
    ]
    rows = np.array(table["embedding"].to_pylist(), np.float32)
    assert (rows == index.embeddings).all()


def test_points_for_qdrant_have_an_id_of_their_path_and_a_payload(
    index: ImageIndex, target: Path, tmp_path: Path
) -> None:
    export(index, target, layout="qdrant")
    payload = [json.loads(line) for line in (target / "payload.jsonl").read_text().splitlines()]
    assert [point["path"] for point in payload] == index.paths
    assert (np.load(target / "vectors.npy", mmap_mode="r") == index.embeddings).all()
    ids = (target / "ids.txt").read_text().split()
    assert ids == [str(uuid.uuid5(POINTS, path)) for path in index.paths]
    export(index, tmp_path / "again", layout="qdrant")
    assert (tmp_path / "again" / "ids.txt").read_text().split() == ids


@pytest.mark.filterwarnings("ignore")
def test_qdrant_finds_the_neighbours_that_clipkit_finds(index: ImageIndex, target: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="pip install qdrant-client")
    models = qdrant.models
    export(index, target, layout="qdrant")
    client = qdrant.QdrantClient(":memory:")
    client.create_collection("photos", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    vectors, ids = np.load(target / "vectors.npy", mmap_mode="r"), (target / "ids.txt").read_text().split()
    with open(target / "payload.jsonl") as lines:
        client.upload_collection("photos", vectors=vectors, payload=map(json.loads, lines), ids=ids)
    for colour in COLOURS:
        hits = index.search(colour, k=8)
        points = client.query_points("photos", query=_text(index, colour).tolist(), limit=8).points
        assert [round(point.score, 3) for point in points] == pytest.approx([hit.score for hit in hits], abs=2e-3)
        assert points[0].payload["path"] == hits[0].path


def _text(index: ImageIndex, text: str) -> np.ndarray:
    return index.encoder.encode_texts([text])[0]
