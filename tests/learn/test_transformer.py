"""Pictures as the first step of scikit-learn's pipelines: paths in, embeddings out, each file encoded once."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from clipkit import ClipTransformer, LinearProbe
from clipkit.core.files import digest
from clipkit.datasets import embed
from clipkit.datasets.embed import embed_files
from clipkit.errors import ImageError, ModelError, NotFittedError, QueryError, ShapeError
from clipkit.models.load import load_encoder
from tests.support.colours import COLOURS, ColourEncoder, paint

SHADES = (0, 20, 40, 60, 80, 100)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[list[str], list[str]]:
    """Six shades of red, of green and of blue: paths and names."""
    files, labels = [], []
    for name, place in {"red": 0, "green": 1, "blue": 2}.items():
        for shade in SHADES:
            colour = [shade, shade, shade]
            colour[place] = 250
            files.append(str(paint(tmp_path / name / f"{shade}.png", tuple(colour))))  # type: ignore[arg-type]
            labels.append(name)
    return files, labels


def pipeline(model: Any) -> Pipeline:
    return Pipeline([("clip", ClipTransformer(model)), ("scale", StandardScaler()), ("probe", LogisticRegression())])


# --- what it gives ---


def test_its_rows_are_the_encoders(photos: Path, starter: Any) -> None:
    files = sorted(photos.iterdir())
    clip = ClipTransformer("starter").fit(files)
    expected = starter.encode_images(files)
    np.testing.assert_allclose(clip.transform(files), expected, atol=1e-5)
    np.testing.assert_allclose(clip.transform([Image.open(file) for file in files]), expected, atol=1e-5)
    names = clip.get_feature_names_out()
    assert (len(names), names[0], names[-1]) == (384, "cliptransformer0", "cliptransformer383")


@pytest.mark.parametrize(
    "hold",
    [
        list,
        tuple,
        np.array,
        lambda files: np.array([[file] for file in files], dtype=object),
        lambda files: [Path(file) for file in files],
        lambda files: pd.Series(files, index=range(50, 50 + len(files))),
        lambda files: pd.DataFrame({"path": files}),
        lambda files: [Image.open(file) for file in files],
        lambda files: np.stack([np.asarray(Image.open(file)) for file in files]),
        lambda files: [Image.open(files[0]), *files[1:]],
    ],
    ids=["list", "tuple", "array", "column", "Paths", "Series", "table", "Pillow", "pixels", "mixed"],
)
def test_pictures_may_be_held_in_anything_that_is_a_list_of_them(
    hold: Callable[[list[str]], Any], labelled: tuple[list[str], list[str]]
) -> None:
    files = labelled[0]
    rows = ClipTransformer(ColourEncoder()).fit_transform(hold(files))
    np.testing.assert_allclose(rows, ColourEncoder().encode_images(files), atol=1e-6)
    assert rows.dtype == np.float32


def test_backbone_features_have_their_own_width_and_empty_lists_none(labelled: tuple[list[str], list[str]]) -> None:
    clip = ClipTransformer(ColourEncoder(), space="backbone").fit(labelled[0])
    assert clip.transform(labelled[0]).shape == (18, 7)
    assert clip.transform([]).shape == (0, 7)
    assert len(clip.get_feature_names_out()) == 7


def test_a_table_has_the_names_of_its_features_and_the_index_of_its_paths(
    labelled: tuple[list[str], list[str]],
) -> None:
    paths = pd.DataFrame({"path": labelled[0]}, index=[f"row {i}" for i in range(18)])
    table = ClipTransformer(ColourEncoder()).set_output(transform="pandas").fit_transform(paths)
    assert list(table) == [f"cliptransformer{i}" for i in range(4)]
    assert list(table.index) == list(paths.index)


# --- pipelines ---


def test_the_pipeline_of_the_cookbook_learns_from_paths(labelled: tuple[list[str], list[str]]) -> None:
    files, labels = labelled
    fitted = pipeline("starter").fit(files[::2], labels[::2])
    assert fitted.score(files[1::2], labels[1::2]) == 1.0
    assert fitted[:-1].get_feature_names_out()[0] == "cliptransformer0"


def test_a_probe_takes_its_rows_as_they_are(labelled: tuple[list[str], list[str]]) -> None:
    files, labels = labelled
    assert (
        make_pipeline(ClipTransformer(ColourEncoder()), LinearProbe(C=100.0)).fit(files, labels).score(*labelled) == 1
    )


def test_folds_and_settings_encode_each_picture_once(labelled: tuple[list[str], list[str]]) -> None:
    files, labels = labelled
    encoder = Counting()
    grid = {"probe__C": [0.1, 1.0, 10.0], "clip__space": ["projected", "backbone"]}
    search = GridSearchCV(pipeline(encoder), grid, cv=3, error_score="raise").fit(files, labels)
    assert search.best_score_ == 1.0
    assert encoder.log.count("projected") <= 18
    assert encoder.log.count("backbone") <= 18
    assert search.predict(files).tolist() == labels
    assert CalibratedClassifierCV(pipeline(encoder), cv=2).fit(files, labels).score(files, labels) == 1
    assert len(encoder.log) <= 36


class Counting(ColourEncoder):
    """Notes the space of each picture that is encoded; copies are itself, as those of clipkit's encoders are."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def encode_pixels(self, pixels: np.ndarray, *, space: str = "projected") -> Any:
        self.log += [space] * len(pixels)
        return super().encode_pixels(pixels, space=space)

    def __deepcopy__(self, memo: object) -> Counting:
        return self


def test_processes_side_by_side_load_the_encoder_by_name(labelled: tuple[list[str], list[str]], starter: Any) -> None:
    with joblib.parallel_config(backend="loky", n_jobs=2):
        scores = cross_val_score(pipeline(starter), *labelled, cv=2, error_score="raise")
    alone = cross_val_score(pipeline(starter), *labelled, cv=2, error_score="raise")
    assert scores.tolist() == pytest.approx(alone.tolist())


def test_a_column_of_a_table_is_a_picture_beside_other_columns(labelled: tuple[list[str], list[str]]) -> None:
    files, labels = labelled
    table = pd.DataFrame({"path": files, "width": range(18)})
    both = ColumnTransformer([("clip", ClipTransformer(ColourEncoder()), "path"), ("rest", "passthrough", ["width"])])
    assert both.fit_transform(table).shape == (18, 5)
    assert make_pipeline(both, StandardScaler(), LogisticRegression()).fit(table, labels).score(table, labels) == 1


def test_a_fitted_pipeline_goes_through_joblib(
    labelled: tuple[list[str], list[str]], models: Callable[[str], Path], tmp_path: Path
) -> None:
    fitted = pipeline(str(models("clip"))).fit(*labelled)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    assert (tmp_path / "fitted.joblib").stat().st_size < 50_000  # no weights of CLIP
    again = joblib.load(tmp_path / "fitted.joblib")
    np.testing.assert_allclose(again.predict_proba(labelled[0]), fitted.predict_proba(labelled[0]), atol=1e-5)
    assert again["clip"].encoder_.fingerprint == fitted["clip"].encoder_.fingerprint


# --- the cache ---


def test_a_file_is_known_by_its_bytes(labelled: tuple[list[str], list[str]], tmp_path: Path) -> None:
    files, encoder = labelled[0], Counting()
    first = ClipTransformer(encoder).fit_transform(files)
    assert len(encoder.log) == 18
    shutil.copy(files[0], tmp_path / "copy.png")
    np.testing.assert_array_equal(ClipTransformer(encoder).fit_transform([str(tmp_path / "copy.png")]), first[:1])
    assert len(encoder.log) == 18
    paint(Path(files[0]), (10, 10, 250))
    changed = ClipTransformer(encoder).fit_transform(files)
    assert len(encoder.log) == 19
    assert not np.allclose(changed[0], first[0])
    np.testing.assert_array_equal(changed[1:], first[1:])
    ClipTransformer(encoder, cache=False).fit_transform(files)
    assert len(encoder.log) == 37


def test_other_weights_and_other_spaces_have_rows_of_their_own(labelled: tuple[list[str], list[str]]) -> None:
    files = labelled[0]
    for encoder, space in [
        (ColourEncoder(), "projected"),
        (ColourEncoder(fingerprint="d0" * 32), "projected"),
        (ColourEncoder(), "backbone"),
    ]:
        embed_files(files, encoder, space=space)
        assert encoder.encoded == 18
        np.testing.assert_array_equal(
            embed_files(files, encoder, space=space), encoder.encode_images(files, space=space)
        )
        assert encoder.encoded == 36


def test_what_was_encoded_before_an_error_is_kept_and_the_cache_is_bounded(
    labelled: tuple[list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.datasets.embed.PIECE", 4)
    files, encoder = labelled[0], ColourEncoder()
    with pytest.raises(ImageError, match=r"gone\.png"):
        embed_files([*files[:9], str(tmp_path / "gone.png")], encoder)
    assert encoder.encoded == 8  # of pieces of 4, 4 and 8 the last broke off
    embed_files(files[:8], encoder)
    assert encoder.encoded == 8
    monkeypatch.setattr("clipkit.datasets.embed.MOST_ROWS", 1)
    rows = embed_files(files, encoder)
    np.testing.assert_array_equal(rows, ColourEncoder().encode_images(files))
    before = encoder.encoded
    np.testing.assert_array_equal(embed_files(files, encoder), rows)
    assert before < encoder.encoded < before + 18  # one picture a file was known, and others were not


def test_a_damaged_cache_is_made_again(labelled: tuple[list[str], list[str]], private_cache: Path) -> None:
    files, encoder = labelled[0], ColourEncoder()
    first = embed_files(files, encoder)
    parts = list((private_cache / "rows").glob("*.safetensors"))
    assert len(parts) > 3
    for part in parts:
        part.write_bytes(b"damaged")
    np.testing.assert_array_equal(embed_files(files, encoder), first)
    assert encoder.encoded == 36


def test_a_file_that_is_as_it_was_is_read_once_and_a_changed_one_again(
    labelled: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, encoder, read = labelled[0][:3], ColourEncoder(), []

    def counted(file: str) -> str | None:
        read.append(file)
        return digest(file)

    monkeypatch.setattr(embed, "digest", counted)
    monkeypatch.setattr(embed, "is_unsettled", lambda info: True)
    embed_files(files, encoder)
    embed_files(files, encoder)
    assert read == files * 2  # a stamp of this moment proves nothing
    read.clear()
    clip = ClipTransformer(encoder).fit(files)
    monkeypatch.setattr(embed, "is_unsettled", lambda info: False)
    first = clip.transform(files)
    np.testing.assert_array_equal(clone(clip).fit(files).transform(files), first)
    assert read == files
    status = os.stat(files[0])
    shutil.copyfile(labelled[0][-1], files[0])
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert abs(clip.transform(files)[0] - encoder.encode_images([files[0]])[0]).max() < 1e-6
    assert read == [*files, files[0]]


# --- what is refused ---


def test_a_path_that_is_no_picture_is_named(labelled: tuple[list[str], list[str]], tmp_path: Path) -> None:
    files = labelled[0]
    (tmp_path / "notes.txt").write_text("no picture")
    clip = ClipTransformer(ColourEncoder()).fit(files)
    for name in ("notes.txt", "gone.png"):
        with pytest.raises(ImageError, match=rf"{name}: ") as caught:
            clip.transform([*files, str(tmp_path / name)])
        assert caught.value.hint == "leave it out, and its label with it"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cat.jpg", "takes a list of pictures"),
        (Path("cat.jpg"), "takes a list of pictures"),
        (Image.new("RGB", (4, 4)), "takes a list of pictures"),
        (np.zeros((4, 4, 3), np.uint8), r"pictures of shape \(4, 4, 3\)"),
        (np.eye(4), "an array of float64 holds no pictures"),
        (["cat.jpg", None], "None, number 1 of 2, is no path and no picture"),
        (pd.Series(["cat.jpg", np.nan]), "nan, number 1 of 2"),
        (pd.DataFrame({"path": ["cat.jpg"], "label": ["cat"]}), r"pictures of shape \(1, 2\)"),
    ],
    ids=str,
)
def test_what_is_no_list_of_pictures_gets_a_sentence(given: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        ClipTransformer(ColourEncoder()).fit(given)
    with pytest.raises(ShapeError, match=said):
        ClipTransformer(ColourEncoder()).fit(["cat.jpg"]).transform(given)


def test_parameters_that_do_not_go_together_are_refused() -> None:
    for clip, said in [
        (ClipTransformer(ColourEncoder(), device="cpu"), "an encoder that is loaded has its engine"),
        (ClipTransformer(ColourEncoder(), batch_size=2), "an encoder that is loaded has its engine"),
        (ClipTransformer(ColourEncoder(), space="text"), "the space is 'text'"),
        (ClipTransformer(3), "model is 3, no name and no encoder"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(QueryError, match=said):
            clip.fit(["cat.jpg"])
    with pytest.raises(ModelError, match="no model is called ViT-B-33"):
        ClipTransformer("ViT-B-33").fit(["cat.jpg"])


def test_before_fit_there_is_no_model() -> None:
    for error in (NotFittedError, SklearnNotFittedError):
        with pytest.raises(error, match="has no model loaded yet"):
            ClipTransformer("starter").transform(["cat.jpg"])
        with pytest.raises(error):
            ClipTransformer("starter").get_feature_names_out()


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learns_checks_that_bring_no_numbers_hold(check: Callable[[str, Any], None]) -> None:
    check("ClipTransformer", ClipTransformer("starter"))


def test_a_copy_shares_a_loaded_encoder_and_a_pickle_loads_it_again(models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), engine="onnx")
    clip = ClipTransformer(encoder).fit(list(COLOURS))
    assert clone(clip).model is encoder
    again = pickle.loads(pickle.dumps(clip))
    assert again.encoder_ is not encoder
    assert again.encoder_.fingerprint == encoder.fingerprint


def test_tensors_are_pictures_and_the_items_of_a_dataset_none(
    labelled: tuple[list[str], list[str]], starter: Any
) -> None:
    import torch

    clip, batch = ClipTransformer(starter), torch.stack([starter.preprocess(file) for file in labelled[0][:2]])
    for given in (batch, list(batch)):
        np.testing.assert_allclose(clip.fit_transform(given), starter.encode_images(batch), atol=1e-6)
    with pytest.raises(ShapeError, match="number 0 of 1, is no path") as caught:
        clip.fit([(Image.new("RGB", (4, 4)), 0)])
    assert caught.value.hint == "its paths: DATASET.files"
