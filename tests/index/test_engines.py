"""Engine and precision of an index: plain floating point may be mixed, anything else only with itself."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clipkit.errors import IndexDamaged, ModelError, ModelMismatch
from clipkit.index.image_index import ImageIndex
from clipkit.index.import_export import export, import_
from clipkit.models.encoder import embeddings_agree
from clipkit.models.int8 import read_agreement
from clipkit.models.load import load_encoder
from clipkit.models.onnx import OnnxEncoder
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.downgrade import to_format_1
from tests.support.faults import indexed, rows_of, run_cli

ALIKE = [
    (("torch", "float32"), ("torch", "bfloat16")),
    (("torch", "bfloat16 float32"), ("torch", "float16")),
    (("torch", "float32"), ("onnx", "float32")),
    (("torch", "float"), ("openvino", "bfloat16")),
    (("onnx", "int8"), ("onnx", "int8")),
    (("onnx", "int8 float32"), ("onnx", "int8 float32")),
]
DIFFERENT = [
    (("torch", "float32"), ("onnx", "int8")),
    (("onnx", "int8"), ("openvino", "int8")),
    (("onnx", "int8"), ("onnx", "int8 float32")),
    (("torch", "float"), ("torch", "int8")),
    (("torch", "float32"), ("torch", "")),
]


class OtherEngine(ColourEncoder):
    """The same colours, computed otherwise."""

    def __init__(self, engine: str, precision: str) -> None:
        super().__init__()
        self.engine, self.precision = engine, precision


@pytest.mark.parametrize(("made", "asked"), ALIKE)
def test_plain_floating_point_agrees_and_all_else_with_itself(made: tuple[str, str], asked: tuple[str, str]) -> None:
    assert embeddings_agree(made, asked)
    assert embeddings_agree(asked, made)


@pytest.mark.parametrize(("made", "asked"), DIFFERENT)
def test_what_is_not_plain_floating_point_agrees_with_nothing_else(
    made: tuple[str, str], asked: tuple[str, str]
) -> None:
    assert not embeddings_agree(made, asked)
    assert not embeddings_agree(asked, made)


@pytest.mark.parametrize(("made", "asked"), ALIKE)
def test_an_engine_that_agrees_asks_and_updates_and_the_first_one_stays_on_record(
    photos: Path, made: tuple[str, str], asked: tuple[str, str]
) -> None:
    indexed(photos, OtherEngine(*made))
    paint(photos / "new.png", (250, 10, 10))
    index = ImageIndex.create(photos, OtherEngine(*asked))
    assert index.update().encoded == 1
    assert {hit.path for hit in index.search("red", k=2)} == {"red.png", "new.png"}
    assert (index.info.engine, index.info.precision) == made


@pytest.mark.parametrize(("made", "asked"), DIFFERENT)
def test_an_engine_that_does_not_agree_is_refused_with_the_command_that_rebuilds(
    photos: Path, monkeypatch: pytest.MonkeyPatch, made: tuple[str, str], asked: tuple[str, str]
) -> None:
    indexed(photos, OtherEngine(*made))
    paint(photos / "new.png", (250, 10, 10))
    other = OtherEngine(*asked)
    for act in (
        lambda: ImageIndex.create(photos, other),
        lambda: ImageIndex.open(photos, encoder=other),
        lambda: ImageIndex.open(photos, load=lambda *_: other).search("red"),
        lambda: ImageIndex.open(photos, load=lambda *_: other).update(),
    ):
        with pytest.raises(ModelMismatch, match=r"was indexed with .* not ") as refused:
            act()
        assert refused.value.hint == f"clipkit index {photos} --rebuild"
    assert "new.png" not in ImageIndex.open(photos).paths
    assert run_cli(monkeypatch, refused.value.hint, other) == 0
    info = ImageIndex.open(photos, encoder=other).info
    assert (info.engine, info.precision) == asked


def test_the_command_names_the_model_where_the_other_engine_has_files_of_its_own(photos: Path) -> None:
    indexed(photos)
    other = OtherEngine("onnx", "int8")
    other.source = "/models/colour int8"
    with pytest.raises(ModelMismatch) as refused:
        ImageIndex.create(photos, other)
    assert refused.value.hint == f"clipkit index {photos} --rebuild --model '/models/colour int8'"


def test_an_index_of_format_1_counts_as_torch_in_floating_point(photos: Path) -> None:
    to_format_1(indexed(photos).store.file)
    assert len(ImageIndex.open(photos, encoder=OtherEngine("onnx", "float16")).search("red", k=100)) == len(COLOURS)
    with pytest.raises(ModelMismatch, match="torch in float, not onnx in int8"):
        ImageIndex.open(photos, encoder=OtherEngine("onnx", "int8"))


@pytest.mark.parametrize("key", ["engine", "precision"])
def test_a_format_2_that_does_not_say_is_damaged(photos: Path, key: str) -> None:
    rows_of(indexed(photos), "DELETE FROM meta WHERE key = ?", key)
    with pytest.raises(IndexDamaged, match="does not say what it holds"):
        ImageIndex.open(photos)


def test_info_shows_them(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = OtherEngine("onnx", "bfloat16 float32")
    indexed(photos, encoder)
    assert run_cli(monkeypatch, f"clipkit info {photos}", encoder) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "made by" not in line)
    assert (shown["engine"], shown["precision"]) == ("onnx", "bfloat16 float32")
    assert run_cli(monkeypatch, f"clipkit info {photos} --json", encoder) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["engine"], facts["precision"]) == ("onnx", "bfloat16 float32")


def test_exported_vectors_say_what_computed_them(photos: Path, tmp_path: Path) -> None:
    export(indexed(photos, OtherEngine("onnx", "int8")), tmp_path / "vectors")
    shutil.rmtree(photos / ".clipkit")
    with pytest.raises(ModelMismatch, match="onnx in int8, not torch in float32"):
        import_(tmp_path / "vectors", photos, ColourEncoder())
    assert import_(tmp_path / "vectors", photos, OtherEngine("onnx", "int8")).imported == len(COLOURS)


def test_an_index_in_int8_is_updated_and_asked_in_int8(photos: Path, models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), precision="int8")
    ImageIndex.create(photos, encoder).update()
    assert isinstance(encoder, OnnxEncoder)
    measured = read_agreement(encoder.export)
    assert measured is not None
    assert measured.pictures == len(COLOURS)
    paint(photos / "new.png", (250, 10, 10))
    index = ImageIndex.open(photos)
    assert index.update().encoded == 1
    assert (index.info.engine, index.info.precision) == ("onnx", "int8 float32")
    assert index.encoder.precision == index.query_encoder.precision == "int8 float32"
    assert index.search_image(photos / "red.png", k=1)[0].path == "red.png"
    with pytest.raises(ModelMismatch, match="onnx in int8 float32, not onnx in float32"):
        ImageIndex.create(photos, load_encoder(str(models("clip")), engine="onnx"))


def test_int8_that_loses_neighbours_is_refused_with_the_command_that_does_without(
    photos: Path, models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.index.agreement.neighbor_overlap", lambda *_: 0.94)
    encoder = load_encoder(str(models("clip")), precision="int8")
    index = ImageIndex.create(photos, encoder)
    for _ in range(2):  # the second time it is remembered
        with pytest.raises(ModelError, match=r"loses too much in int8: .* finds 94% that float32 finds") as refused:
            index.update()
        monkeypatch.setattr("clipkit.index.agreement._measure", lambda *_: pytest.fail("it is remembered"))
    assert refused.value.hint == f"clipkit index {photos} --rebuild --precision float32"
    assert not len(index)
    assert run_cli(monkeypatch, refused.value.hint, load_encoder(str(models("clip")), engine="onnx")) == 0
    assert len(ImageIndex.open(photos)) == len(COLOURS)


def test_one_path_may_have_many_replaced_contents_and_one_that_counts(photos: Path) -> None:
    file = indexed(photos).store.file
    facts = "path, size, mtime_ns, ctime_ns, inode, sha256, width, height, taken_at, share"
    facts += ", phash, camera, latitude, longitude, rating, tags, title, sidecar"
    again = f"INSERT INTO images SELECT NULL, {facts}, "
    with closing(sqlite3.connect(file)) as db:
        for _ in range(2):
            db.execute(f"{again} 'replaced', error, revision, embedding FROM images WHERE id = 1")
        for state in ("ok", "missing", "failed"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(f"{again} '{state}', error, revision, embedding FROM images WHERE id = 1")
