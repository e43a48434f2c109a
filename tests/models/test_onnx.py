"""The ONNX engine against torch, on small random models of each kind and on the starter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipkit
from clipkit.core.cache import ArrayCache
from clipkit.errors import ModelError, ShapeError
from clipkit.models import devices
from clipkit.models.devices import check_engine
from clipkit.models.encoder import Encoder, identity
from clipkit.models.exports import IMAGE, RECORD, TEXT, find_export
from clipkit.models.int8 import neighbor_overlap
from clipkit.models.load import as_open_clip, export_weights, load_encoder
from clipkit.models.onnx import OnnxEncoder
from clipkit.models.onnx_export import odd_texts, texts_to_compare
from clipkit.models.openclip import OpenClipEncoder, load_network, open_clip_catalogue, tokenizer_data
from clipkit.models.registry import SAFE_WEIGHTS, find_weights, starter_folder
from clipkit.models.tokenizer import clean_text
from tests.support.tiny_models import CONFIGS

# Towers that torch's exporter, or the `tokenizers` library, has no words for: torch computes them.
LEFT_TO_TORCH: dict[str, set[str]] = {}
TEXTS = [
    "a photo of a dog",
    "two small red boats on the lake",
    "",
    "a photo of a dog " * 30,
    "Übergrößenträger 中文 😀",
]


def pictures(side: tuple[int, int], count: int = 7) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 3, 6, 6)).astype(np.uint8)
    rows, columns = (np.arange(size) * 6 // size for size in side)
    return coarse[:, :, rows][:, :, :, columns]


def folder_of(encoder: Encoder) -> Path:
    export = find_export(encoder.fingerprint, encoder.model)
    assert export is not None
    return export.folder


@pytest.fixture(scope="module")
def starter_pair() -> tuple[OnnxEncoder, OpenClipEncoder]:
    quick = load_encoder("starter", engine="onnx")
    assert isinstance(quick, OnnxEncoder)
    return quick, as_open_clip(load_encoder("starter", engine="torch", precision="float32"))


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_each_kind_of_model_answers_as_in_torch(kind: str, models: Callable[[str], Path]) -> None:
    torch = as_open_clip(load_encoder(str(models(kind)), engine="torch", device="cpu", precision="float32"))
    try:
        quick = load_encoder(str(models(kind)), engine="onnx")
    except ModelError:
        assert IMAGE in LEFT_TO_TORCH.get(kind, ())
        return
    export = find_export(quick.fingerprint, quick.model)
    assert export is not None
    assert {IMAGE, TEXT} - set(export.graphs) == LEFT_TO_TORCH.get(kind, set())
    pixels = pictures(quick.recipe.size)
    assert (quick.encode_pixels(pixels) * torch.encode_pixels(pixels)).sum(axis=1).min() >= 0.9999
    assert (quick.encode_texts(TEXTS) * torch.encode_texts(TEXTS)).sum(axis=1).min() >= 0.9999
    for name in ("model", "source", "fingerprint", "dim", "logit_scale", "logit_bias"):
        assert getattr(quick, name) == getattr(torch, name), name
    assert str(quick.recipe) == str(torch.recipe)


def test_the_starter_answers_as_in_torch(starter_pair: tuple[OnnxEncoder, OpenClipEncoder], real_data: Path) -> None:
    quick, torch = starter_pair
    files = sorted((real_data / "captions").rglob("*.jpg"))[:50]
    assert len(files) == 50
    assert (quick.encode_images(files) * torch.encode_images(files)).sum(axis=1).min() >= 0.9999
    texts = texts_to_compare()
    assert len(set(texts)) >= 200
    assert (quick.encode_texts(texts) * torch.encode_texts(texts)).sum(axis=1).min() >= 0.9999


def test_a_thousand_odd_texts_have_open_clips_tokens() -> None:
    _, tokenize = load_network(find_weights("starter", open_clip_catalogue()))
    data, texts = tokenizer_data(tokenize), odd_texts()
    assert data is not None
    assert len(texts) == 1_000
    np.testing.assert_array_equal(data(texts), tokenize(texts).numpy())


def test_plain_texts_have_open_clips_tokens_without_the_tokenizers_library() -> None:
    _, tokenize = load_network(find_weights("starter", open_clip_catalogue()))
    data = tokenizer_data(tokenize)
    assert data is not None
    assert data.merges
    rng = np.random.default_rng(0)
    letters = [chr(code) for code in range(32, 127) if chr(code) not in "&<"]
    syllables = ["photo", "graph", "er", "'s", "'LL", "ing", "un", "dog", "7", " ", " ", "!", "-", "qz", "Th"]
    texts = [
        *("".join(rng.choice(letters, size=int(rng.integers(0, 40)))) for _ in range(1_000)),
        *("".join(rng.choice(syllables, size=int(rng.integers(0, 12)))) for _ in range(1_000)),
        *texts_to_compare(),
    ]
    wanted = tokenize(texts).numpy()
    np.testing.assert_array_equal(np.concatenate([data([text]) for text in texts]), wanted)
    assert "_model" not in vars(data)
    np.testing.assert_array_equal(data(["<start_of_text> a dog & a cat"]), tokenize(["<start_of_text> a dog & a cat"]))
    assert "_model" in vars(data)


@pytest.mark.parametrize(
    ("how", "cleaned"),
    [
        ("lower", "it's a b&b <i>"),
        ("whitespace", "It's a B&B <i>"),
        ("canonicalize", "its a bb i"),
    ],
)
def test_texts_are_cleaned_as_open_clip_does(how: str, cleaned: str) -> None:
    text = "  It\u2019s\ta  B&amp;amp;B &lt;i&gt; "
    assert clean_text(text, how) == cleaned
    from open_clip.tokenizer import get_clean_fn

    assert clean_text(text, how) == get_clean_fn(how)(text)


def test_the_starters_graphs_read_the_starters_weights() -> None:
    weights = starter_folder() / SAFE_WEIGHTS
    assert sum(file.stat().st_size for file in starter_folder().iterdir()) < 60e6
    for name in (IMAGE, TEXT):
        graph = starter_folder() / name
        assert weights.name.encode() in graph.read_bytes()
        assert graph.stat().st_size < 1e6


SCRIPT = """
import sys
from clipkit.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {heavy!r} if name in sys.modules])
"""
HEAVY = ("torch", "open_clip", "torchvision", "transformers", "scipy", "pandas", "sklearn", "faiss")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "a red square", "photos"],
        ["search", "./photos/red.png + blue", "photos"],
        ["search", "green", "photos", "--min-relevance", "likely"],
        ["classify", "photos", "--classes", "red,blue,green", "--unknown", "--adapt"],
        ["classify", "photos", "--classes", "red,blue", "--explain", "photos/red.png"],
        ["info", "photos"],
        ["index", "photos"],
        ["duplicates", "photos"],
    ],
    ids=" ".join,
)
def test_an_answer_needs_no_torch(arguments: list[str], photos: Path, tmp_path: Path) -> None:
    clipkit.ImageIndex.create(photos, load_encoder("starter")).update()
    script = SCRIPT.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=photos.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_new_picture_is_indexed_without_torch(photos: Path) -> None:
    clipkit.ImageIndex.create(photos, load_encoder("starter")).update()
    shutil.copy(photos / "red.png", photos / "one-more.png")
    with open(photos / "one-more.png", "ab") as file:
        file.write(b"other bytes")
    script = SCRIPT.format(arguments=["index", "photos"], heavy=HEAVY[:-1])  # faiss writes the cache
    done = subprocess.run([sys.executable, "-c", script], cwd=photos.parent, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "1 new" in done.stdout + done.stderr


@pytest.mark.parametrize("name", [TEXT, "text.weights"])
def test_a_damaged_graph_is_made_again(name: str, models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), engine="onnx")
    expected = encoder.encode_texts(["a text"])
    in_use = load_encoder(str(models("clip")), engine="onnx")
    graph = folder_of(encoder) / name
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 255
    graph.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged") as caught:  # between two looks at it
        in_use.encode_texts(["a text that nobody has asked for before"])
    assert str(graph.parent) in str(caught.value.hint)
    assert find_export(encoder.fingerprint, encoder.model) is None
    mended = load_encoder(str(models("clip")), engine="onnx")
    assert find_export(encoder.fingerprint, encoder.model) is not None
    np.testing.assert_allclose(mended._encode(["a text"]), expected, atol=1e-6)  # type: ignore[union-attr]


def test_an_export_is_published_whole_and_the_first_stays(models: Callable[[str], Path], private_cache: Path) -> None:
    weights = find_weights(str(models("clip")), open_clip_catalogue())
    first = export_weights(weights)
    stamps = {file.name: file.stat().st_mtime_ns for file in first.folder.iterdir()}
    again = export_weights(weights)
    assert again == first
    assert {file.name: file.stat().st_mtime_ns for file in first.folder.iterdir()} == stamps
    assert [folder.name for folder in (private_cache / "exports").iterdir()] == [first.folder.name]


def test_an_index_whose_model_folder_is_gone_is_not_answered_by_a_guess(
    models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models("clip"), tmp_path / "mine")
    clipkit.ImageIndex.create(photos, load_encoder(str(folder), engine="onnx")).update()
    assert clipkit.ImageIndex.open(photos).search("red", k=1)
    folder.rename(tmp_path / "moved")
    with pytest.raises(ModelError):
        clipkit.ImageIndex.open(photos).search("red", k=1)


def test_a_damaged_record_is_no_export(models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), engine="onnx")
    record = folder_of(encoder) / RECORD
    record.write_text(record.read_text()[:-20])
    assert find_export(encoder.fingerprint, encoder.model) is None
    assert load_encoder(str(models("clip")), engine="onnx").model == encoder.model
    assert find_export(encoder.fingerprint, encoder.model) is not None


def test_what_cannot_be_exported_is_left_to_torch(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no operator of that kind")

    monkeypatch.setattr("clipkit.models.onnx_export._trace", fail)
    encoder = load_encoder(str(models("quickgelu")), device="cpu")
    assert encoder.engine == "torch"
    export = find_export(encoder.fingerprint, encoder.model)
    assert export is not None
    assert not export.graphs
    with pytest.raises(ModelError, match="could not be exported") as caught:
        load_encoder(str(models("quickgelu")), engine="onnx")
    assert caught.value.hint == "--engine torch"


def test_a_graph_that_answers_otherwise_is_not_kept(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.models.onnx_export._agree", lambda *_: False)
    encoder = load_encoder(str(models("clip")), device="cpu")
    assert encoder.engine == "torch"
    assert not list(folder_of(encoder).glob("*.onnx"))


@pytest.mark.parametrize(
    ("engine", "device", "precision", "has_gpu", "chosen"),
    [
        ("auto", "auto", "auto", False, "auto"),
        ("auto", "auto", "auto", True, "torch"),
        ("auto", "cpu", "auto", True, "auto"),
        ("auto", "cpu", "float32", False, "auto"),
        ("auto", "cpu", "bfloat16", False, "torch"),
        ("auto", "cuda", "auto", False, "torch"),
        ("onnx", "auto", "auto", True, "onnx"),
        ("torch", "auto", "float32", False, "torch"),
        ("auto", "auto", "int8", True, "onnx"),
    ],
)
def test_the_engine_is_chosen_by_the_machine(
    engine: str, device: str, precision: str, has_gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.models.devices.has_gpu", lambda: has_gpu)
    assert check_engine(engine, device, precision) == chosen


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_torch_takes_over_where_many_pictures_are_faster_in_bfloat16(
    has_bfloat16: bool, models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.models.load.has_fast_bfloat16", lambda: has_bfloat16)
    clip = load_encoder(str(models("clip")), device="cpu")
    cnn = load_encoder(str(models("cnn")), device="cpu")
    assert clip.engine == ("onnx torch" if has_bfloat16 else "onnx")
    assert clip.precision == ("float32 bfloat16" if has_bfloat16 else "float32")
    assert cnn.engine == "onnx"
    asked: list[int] = []
    monkeypatch.setattr(OpenClipEncoder, "encode_pixels", lambda _, pixels, **__: asked.append(len(pixels)))
    pixels = pictures(clip.recipe.size, 250)
    for _ in range(6):
        clip.encode_pixels(pixels)
    assert asked == ([250, 250] if has_bfloat16 else [])


@pytest.mark.parametrize(("pays", "expected", "torchs"), [(0.0, 12, 2), (0.0, 4, 0), (1e9, 12, 0), (0.0, 0, 0)])
def test_torch_takes_over_early_where_it_pays_for_what_is_expected(
    pays: float,
    expected: int,
    torchs: int,
    models: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clipkit.models.load.has_fast_bfloat16", lambda: True)
    monkeypatch.setattr("clipkit.models.onnx.TORCH_PAYS", pays)
    clip = load_encoder(str(models("clip")), device="cpu")
    assert isinstance(clip, OnnxEncoder)
    asked: list[int] = []
    monkeypatch.setattr(OpenClipEncoder, "encode_pixels", lambda _, pixels, **__: asked.append(len(pixels)))
    clip.expect(expected)
    for _ in range(3):
        clip.encode_pixels(pictures(clip.recipe.size, 4))
    assert asked == [4] * torchs


def test_an_index_run_says_how_many_pictures_it_has(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(OnnxEncoder, "expect", lambda _, pictures: counts.append(pictures))
    report = clipkit.ImageIndex.create(photos, load_encoder("starter")).update()
    assert counts == [report.found]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "abacus"}, "no engine is called 'abacus'"),
        ({"engine": "onnx", "device": "cuda"}, "float32 on the CPU, not on cuda"),
        ({"engine": "onnx", "precision": "bfloat16"}, "float32 on the CPU, not in bfloat16"),
        ({"engine": "torch", "precision": "int8"}, "precision int8 does not go with cpu in torch"),
        ({"device": "cuda", "precision": "int8"}, "int8 is computed on the CPU, not on cuda"),
    ],
)
def test_engines_that_do_not_go_with_the_rest_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder("starter", **options)
    assert caught.value.hint


def test_an_index_of_torch_is_searched_without_it(
    photos: Path, starter_pair: tuple[OnnxEncoder, OpenClipEncoder]
) -> None:
    clipkit.ImageIndex.create(photos, starter_pair[1]).update()
    index = clipkit.ImageIndex.open(photos, load=lambda *_: pytest.fail("nothing else is loaded"))
    assert isinstance(index.query_encoder, OnnxEncoder)
    found = [hit.path for hit in index.search("a red square", k=3)]
    asked = index.search_embeddings(starter_pair[1].encode_texts(["a red square"]), k=3)[0]
    assert found == [hit.path for hit in asked]
    assert index.search_image(photos / "red.png", k=1)[0].path == "red.png"


def test_exact_pixels_are_queried_with_exact_pixels(photos: Path) -> None:
    clipkit.ImageIndex.create(photos, load_encoder("starter", exact_pixels=True)).update()
    index = clipkit.ImageIndex.open(photos)
    assert index.query_encoder.recipe.exact
    assert str(index.query_encoder.recipe) == index.info.pixel_recipe


def test_backbone_features_are_torchs(starter_pair: tuple[OnnxEncoder, OpenClipEncoder]) -> None:
    quick, torch = starter_pair
    pixels = pictures(quick.recipe.size, 2)
    ours, theirs = (encoder.encode_pixels(pixels, space="backbone") for encoder in (quick, torch))
    assert (ours * theirs).sum(axis=1).min() >= 0.999
    with pytest.raises(ShapeError, match="space"):
        quick.encode_pixels(pixels, space="nowhere")


def test_queries_are_remembered_and_the_oldest_go(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("starter")
    first = encoder.encode_texts(["a query that is asked twice"])
    monkeypatch.setattr(OnnxEncoder, "_encode", lambda *_: pytest.fail("it is remembered"))
    np.testing.assert_array_equal(load_encoder("starter").encode_texts(["a query that is asked twice"]), first)
    cache = ArrayCache("few", form="few-1", most=10)
    for number in range(40):
        cache.put(f"{number:02}", {"a": np.zeros(1)})
        assert len(list((private_cache / "few").iterdir())) <= 10
    assert cache.get("39") is not None
    assert cache.get("00") is None


def test_an_export_is_found_by_name_only_where_names_cannot_change(models: Callable[[str], Path]) -> None:
    from clipkit.models.exports import find_export_of

    encoder = load_encoder(str(models("clip")), engine="onnx")
    assert find_export_of(encoder.model) is None
    record = folder_of(encoder) / RECORD
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "model": "ViT-B-32/tag", "source": "ViT-B-32/tag"}))
    assert find_export_of("ViT-B-32/tag") is not None


def test_the_starters_export_is_of_the_weights_beside_it() -> None:
    weights = find_weights("starter", open_clip_catalogue())
    export = find_export(weights.fingerprint, weights.model)
    assert export is not None, "run training/export_onnx.py after the weights have changed"
    assert export.folder == starter_folder()
    assert {IMAGE, TEXT} <= set(export.graphs)


def test_the_same_weights_under_another_config_are_another_export(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(models("quickgelu"), tmp_path / "mine")
    first = load_encoder(str(folder), engine="onnx").encode_texts(["a text for two configs"])
    config = json.loads((folder / "open_clip_config.json").read_text())
    del config["model_cfg"]["quick_gelu"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch = load_encoder(str(folder), engine="torch", precision="float32").encode_texts(["another text"])
    second = load_encoder(str(folder), engine="onnx")
    assert (second.encode_texts(["another text"]) * torch).sum() >= 0.9999
    assert not np.allclose(second.encode_texts(["a text for two configs"]), first, atol=1e-4)
    same_name = shutil.copytree(models("quickgelu"), tmp_path / "elsewhere" / "mine")
    again = load_encoder(str(same_name), engine="onnx").encode_texts(["a text for two configs"])
    np.testing.assert_allclose(again, first, atol=1e-6)


def test_a_cache_that_cannot_be_written_leaves_the_work_to_torch(
    models: Callable[[str], Path], private_cache: Path, photos: Path
) -> None:
    private_cache.mkdir(exist_ok=True)
    (private_cache / "exports").write_text("a file where a folder should be")
    lines: list[str] = []
    encoder = load_encoder(str(models("clip")), device="cpu", notify=lines.append)
    assert encoder.engine == "torch"
    assert any("cannot be kept" in line for line in lines)
    index = clipkit.ImageIndex.create(photos, encoder)
    index.update()
    assert len(clipkit.ImageIndex.open(photos).search("red", k=2)) == 2


@pytest.mark.parametrize(
    ("version", "is_there"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True),
        ("cuda = None\nhip = '6.2'\n", True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("__version__ = '2.9'\n", True),
    ],
)
def test_a_gpu_is_for_a_torch_that_was_built_for_it(
    version: str, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(version)
    (tmp_path / "nvidia0").touch()
    spec = spec_from_file_location("torch", tmp_path / "torch" / "__init__.py")
    monkeypatch.setattr("clipkit.models.devices.find_spec", lambda name: spec)
    monkeypatch.setattr("clipkit.models.devices.GPU_DEVICES", (str(tmp_path / "nvidia0"),))
    monkeypatch.setattr("clipkit.models.devices.sys.platform", "linux")
    assert devices.has_gpu() == is_there
    assert check_engine("auto", "auto", "auto") == ("torch" if is_there else "auto")
    monkeypatch.setattr("clipkit.models.devices.GPU_DEVICES", (str(tmp_path / "none"),))
    assert not devices.has_gpu()


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("cuda", "auto", "not on cuda"),
        ("auto", "bfloat16", "not in bfloat16"),
        ("cuda", "float16", "not in float16 on cuda"),
    ],
)
def test_what_the_onnx_engine_does_not_do_is_said_in_words(device: str, precision: str, said: str) -> None:
    with pytest.raises(ModelError, match=f"engine onnx computes in float32 on the CPU, {said}$"):
        check_engine("onnx", device, precision)


def test_a_folder_without_a_model_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a" / "m").mkdir(parents=True)
    code = (
        "import sys; from clipkit.models.load import load_encoder; from clipkit.errors import ModelError\n"
        "try: load_encoder('a/m')\n"
        "except ModelError as error: print(error.message, '|', 'torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "a/m is a folder without open_clip_config.json | False"


def test_a_folder_called_as_an_architecture_hides_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ViT-B-32" / "no such tag").mkdir(parents=True)
    with pytest.raises(ModelError, match="ViT-B-32 has no weights called"):
        load_encoder("ViT-B-32/no such tag")


def test_matrix_products_in_int8_find_nearly_the_same(models: Callable[[str], Path], private_cache: Path) -> None:
    lines: list[str] = []
    whole = load_encoder(str(models("clip")), engine="onnx")
    quick = load_encoder(str(models("clip")), precision="int8", notify=lines.append)
    assert isinstance(quick, OnnxEncoder)
    assert (quick.engine, quick.precision) == ("onnx", "int8 float32")
    assert any("in int8" in line for line in lines)
    graph = (quick.export.folder / IMAGE).read_bytes()
    assert b"MatMulInteger" in graph
    pixels = pictures(quick.recipe.size)
    ours, theirs = quick.encode_pixels(pixels), whole.encode_pixels(pixels)
    assert 0.99 <= (ours * theirs).sum(axis=1).min() < 1 - 1e-7
    np.testing.assert_array_equal(quick.encode_texts(TEXTS), whole.encode_texts(TEXTS))
    assert identity(quick) != identity(whole)
    stamps = [(quick.export.folder / name).stat().st_mtime_ns for name in quick.export.graphs]
    again = load_encoder(str(models("clip")), precision="int8")
    assert isinstance(again, OnnxEncoder)
    assert [(again.export.folder / name).stat().st_mtime_ns for name in again.export.graphs] == stamps
    assert len(list((private_cache / "exports").glob("[!.]*"))) == 2


def test_a_damaged_int8_tower_is_made_again(models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), precision="int8")
    assert isinstance(encoder, OnnxEncoder)
    graph = encoder.export.folder / IMAGE
    content = graph.read_bytes()
    graph.write_bytes(content[:-9])
    assert find_export(encoder.fingerprint, encoder.model, precision="int8") is None
    assert find_export(encoder.fingerprint, encoder.model) is not None
    load_encoder(str(models("clip")), precision="int8")
    assert len(graph.read_bytes()) == len(content)


def test_a_convolutional_tower_gains_nothing_from_int8() -> None:
    with pytest.raises(ModelError, match="nothing to gain in starter") as caught:
        load_encoder("starter", precision="int8")
    assert caught.value.hint == "--precision float32"


def test_neighbours_are_counted_by_hand() -> None:
    rows = np.eye(8, dtype=np.float32)[[0, 0, 0, 1, 1, 1]] + np.float32(0.01) * np.arange(6)[:, None]
    assert neighbor_overlap(rows, rows) == 1.0
    swapped = rows[[0, 1, 3, 2, 4, 5]]
    full = rows @ rows.T
    np.fill_diagonal(full, -9)
    other = swapped @ swapped.T
    np.fill_diagonal(other, -9)
    both = zip(np.argsort(-full)[:, :2].tolist(), np.argsort(-other)[:, :2].tolist(), strict=True)
    assert neighbor_overlap(rows, swapped) == pytest.approx(np.mean([len(set(a) & set(b)) / 2 for a, b in both]))
    assert neighbor_overlap(rows[:2], swapped[:2]) == 1.0
