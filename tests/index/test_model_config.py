"""The config by which the weights of an index are read: the same weights under another are another model."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import clipkit
from clipkit.errors import ModelMismatch
from clipkit.index.image_index import ImageIndex, open_or_create
from clipkit.models.load import load_encoder
from tests.support.colours import ColourEncoder


@pytest.fixture
def model(models: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of its own, whose config may be edited."""
    return shutil.copytree(models("clip"), tmp_path / "model")


def index_with(model: Path, photos: Path) -> ImageIndex:
    index = ImageIndex.create(photos, load_encoder(str(model)))
    index.update()
    return index


def edit(model: Path, **values: object) -> None:
    file = model / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"] |= values
    file.write_text(json.dumps(config))


def forget(photos: Path) -> None:
    """As an index was that was made before configs were compared."""
    with closing(sqlite3.connect(photos / ".clipkit" / "index.db")) as db, db:
        db.execute("DELETE FROM meta WHERE key = 'model_cfg_sha256'")


def test_a_config_edited_in_place_is_refused_wherever_it_would_change_answers(model: Path, photos: Path) -> None:
    index_with(model, photos)
    edit(model, heads=4)
    load_encoder(str(model))  # its export lies in the cache too
    for act in (
        lambda: ImageIndex.open(photos).search("red"),
        lambda: ImageIndex.open(photos).encoder,
        lambda: ImageIndex.open(photos).update(),
        lambda: ImageIndex.create(photos, load_encoder(str(model))),
        lambda: open_or_create(photos, lambda name, _: load_encoder(name)).update(),
    ):
        with pytest.raises(ModelMismatch, match="another config of local:model") as caught:
            act()
        assert caught.value.hint == f"clipkit index {photos} --rebuild"


def test_the_hint_rebuilds_and_a_config_put_back_answers_as_it_did(model: Path, photos: Path) -> None:
    before = [hit.score for hit in index_with(model, photos).search("red")]
    config = (model / "open_clip_config.json").read_bytes()
    edit(model, heads=4)
    rebuilt = open_or_create(photos, lambda name, _: load_encoder(name), rebuild=True)
    rebuilt.update()
    assert [hit.score for hit in ImageIndex.open(photos).search("red")] != before
    (model / "open_clip_config.json").write_bytes(config)
    with pytest.raises(ModelMismatch):
        ImageIndex.open(photos).search("red")


def test_a_config_that_says_the_same_otherwise_is_the_same(model: Path, photos: Path) -> None:
    index_with(model, photos)
    file = model / "open_clip_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4, sort_keys=True))
    assert ImageIndex.open(photos).search("red")
    assert ImageIndex.open(photos).update().unchanged == 8


def test_an_index_from_before_is_accepted_once_and_then_remembers(model: Path, photos: Path) -> None:
    index = index_with(model, photos)
    known = index.info.model_cfg_sha256
    forget(photos)
    assert ImageIndex.open(photos).search("red")
    assert not ImageIndex.open(photos).info.model_cfg_sha256
    ImageIndex.open(photos).update()
    assert ImageIndex.open(photos).info.model_cfg_sha256 == known


def test_engines_agree_on_the_config(models: Callable[[str], Path]) -> None:
    for name in (str(models("clip")), "starter"):
        encoders = [load_encoder(name, engine=engine) for engine in ("torch", "onnx")]
        assert len({encoder.model_cfg_sha256 for encoder in encoders}) == 1


def test_an_encoder_made_by_hand_has_none(photos: Path) -> None:
    index = ImageIndex.create(photos, ColourEncoder())
    index.update()
    assert index.info.model_cfg_sha256 == ""
    assert clipkit.ImageIndex.open(photos, encoder=ColourEncoder()).search("red")
