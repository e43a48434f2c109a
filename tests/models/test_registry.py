"""Names, folders, the hub and the fingerprint, without a network and without torch."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipkit.errors import ModelError
from clipkit.models import hub as hub_module
from clipkit.models import registry
from clipkit.models.hub import fingerprint
from clipkit.models.registry import (
    ALIASES,
    CONFIG,
    PICKLE_WEIGHTS,
    SAFE_WEIGHTS,
    Pretrained,
    canonical_name,
    find_weights,
)
from tests.support.fake_hub import COMMIT, FakeHub, serve

LAION = "ViT-B-32/laion2b_s34b_b79k"
CATALOGUE = {
    "ViT-B-32": {
        "openai": Pretrained("timm/vit_base_patch32_clip_224.openai", quick_gelu=True),
        "laion2b_s34b_b79k": Pretrained("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    },
    "ViT-B-16-SigLIP-256": {"webli": Pretrained("timm/ViT-B-16-SigLIP-256")},
    "ViTamin-S": {"datacomp1b": Pretrained("jienengchen/ViTamin-S", "pytorch_model.bin")},
}


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKIT_CACHE", str(tmp_path / "clipkit-cache"))
    _use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve(tmp_path / "served") as served:
        _use_hub(monkeypatch, served.url, tmp_path / "hub-cache")
        yield served


def _use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path, *, offline: bool = False) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


def _put(folder: Path, repo: str, name: str, content: bytes = b"weights") -> Path:
    file = folder / repo / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


# --- names ---


@pytest.mark.parametrize(
    "written",
    [
        LAION,
        "fast",
        "ViT-B-32,laion2b_s34b_b79k",
        "ViT-B-32, LAION2B_s34B_b79K",
        "ViT-B-32__laion2b_s34b_b79k",
        "ViT-B-32__laion2b-s34b-b79k",
        "ViT-B/32/laion2b_s34b_b79k",
    ],
)
def test_a_model_has_one_name_however_it_is_written(written: str) -> None:
    assert canonical_name(written) == LAION


@pytest.mark.parametrize("name", ["starter", "auto", "hf-hub:org/repo"])
def test_these_names_stay_as_they_are(name: str) -> None:
    assert canonical_name(name) == name


def test_every_alias_but_starter_is_one_of_open_clips_names_and_never_openais() -> None:
    for alias in ALIASES.values():
        assert canonical_name(alias.name) == alias.model == canonical_name(alias.model)
        assert (alias.repo is None) == (alias.name == "starter")
        assert "openai" not in alias.model


def test_a_folder_is_named_by_its_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(tmp_path, "mine", CONFIG)
    monkeypatch.chdir(tmp_path)
    for written in (str(tmp_path / "mine"), "mine", "./mine", "local-dir:mine", "mine/../mine/"):
        assert canonical_name(written) == "local:mine"


@pytest.mark.parametrize("written", ["ViT-B-32", "ViT-B/32"])
def test_an_architecture_without_weights_is_answered_with_one_set_and_the_others(written: str) -> None:
    with pytest.raises(ModelError, match="ViT-B-32 names no weights") as caught:
        find_weights(written, CATALOGUE)
    assert caught.value.hint == f"--model {LAION}; ViT-B-32/ also takes openai, laion2b_s34b_b79k"


def test_weights_of_every_architecture_are_advised() -> None:
    from clipkit.models.openclip import open_clip_catalogue

    catalogue = open_clip_catalogue()
    found = {}
    for architecture, tags in catalogue.items():
        with pytest.raises(ModelError) as caught:
            find_weights(architecture, catalogue)
        found[architecture] = str(caught.value.hint).removeprefix("--model ").partition(";")[0]
        assert found[architecture].partition("/")[2] in tags
    assert found["ViT-B-16"] == "ViT-B-16/datacomp_xl_s13b_b90k"
    assert found["ViT-H-14"] == "ViT-H-14/laion2b_s32b_b79k"
    assert found["RN50"] == "RN50/openai"
    assert found["ViT-B-16-SigLIP-256"] == "ViT-B-16-SigLIP-256/webli"


@pytest.mark.parametrize(
    ("repository", "name"),
    [
        ("openai/clip-vit-base-patch32", "ViT-B-32/openai"),
        ("openai/clip-vit-large-patch14-336", "ViT-L-14-336/openai"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", LAION),
        ("google/siglip-base-patch16-256-multilingual", "ViT-B-16-SigLIP-i18n-256/webli"),
        ("apple/MobileCLIP-S1", "MobileCLIP-S1/datacompdr"),
        ("apple/DFN2B-CLIP-ViT-L-14", "ViT-L-14/dfn2b"),
    ],
)
def test_a_repository_of_transformers_has_open_clips_name(repository: str, name: str) -> None:
    assert canonical_name(repository) == name


def test_every_name_of_a_repository_is_one_that_open_clip_knows() -> None:
    from clipkit.models.openclip import open_clip_catalogue

    catalogue = open_clip_catalogue()
    for repository, name in registry.hub_names().items():
        architecture, _, tag = name.partition("/")
        own = catalogue[architecture][tag].repo
        assert own == repository or repository.startswith(("openai/", "google/", "facebook/", "apple/")), repository
        shared = "timm/ViT-SO400M-14-SigLIP-384", "timm/vit_base_patch16_plus_clip_240.laion400m_e31"
        assert registry.hub_names()[own] == name or own in shared


def test_the_name_of_a_repository_is_said_in_one_line(hub: FakeHub) -> None:
    from clipkit.models.load import load_encoder

    lines: list[str] = []
    with pytest.raises(ModelError, match="timm/vit_base_patch32_clip_224"):
        load_encoder("openai/clip-vit-base-patch32", notify=lines.append)
    assert lines[0] == "openai/clip-vit-base-patch32 is ViT-B-32/openai in open_clip"


def test_a_model_that_transformers_has_fetched_is_named_where_open_clips_weights_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache", offline=True)
    with pytest.raises(ModelError) as caught:
        find_weights("openai/clip-vit-base-patch32", CATALOGUE)
    assert "--model starter" in str(caught.value.hint)
    place = "hub-cache/models--openai--clip-vit-base-patch32"
    _put(tmp_path, place, "refs/main", COMMIT.encode())
    config = _put(tmp_path, place, f"snapshots/{COMMIT}/config.json", b'{"architectures": ["CLIPModel"]}')
    with pytest.raises(ModelError, match="timm/vit_base_patch32_clip_224") as caught:
        find_weights("openai/clip-vit-base-patch32", CATALOGUE)
    assert caught.value.hint == f"--model {config.parent}"


def test_a_repository_of_another_layout_is_answered_with_open_clips_name(hub: FakeHub) -> None:
    _put(hub.folder, "google/siglip-base-patch16-224", "config.json")
    with pytest.raises(ModelError, match="is no open_clip model") as caught:
        find_weights("hf-hub:google/siglip-base-patch16-224", CATALOGUE)
    assert caught.value.hint == "open_clip has the model: --model ViT-B-16-SigLIP/webli"


@pytest.mark.parametrize("shard", ["5GB", "200KB"])
def test_a_repository_that_transformers_saved_to_is_converted(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    from clipkit.models.vit import quietly
    from tests.support.saved_models import save_clip

    network = save_clip(hub.folder / "me" / "my-clip")
    with quietly():
        (hub.folder / "me" / "my-clip" / "model.safetensors").unlink()
        network.save_pretrained(hub.folder / "me" / "my-clip", max_shard_size=shard)
    weights = find_weights("hf-hub:me/my-clip", CATALOGUE)
    assert (weights.model, weights.source) == ("hf-hub:me/my-clip", "hf-hub:me/my-clip")
    assert weights.fingerprint == find_weights(str(hub.folder / "me" / "my-clip"), CATALOGUE).fingerprint
    _use_hub(monkeypatch, hub.url, tmp_path / "hub-cache", offline=True)
    assert find_weights("hf-hub:me/my-clip", CATALOGUE) == weights


def test_a_repository_without_safetensors_is_refused(hub: FakeHub) -> None:
    _put(hub.folder, "me/old", "config.json", b'{"architectures": ["CLIPModel"]}')
    _put(hub.folder, "me/old", "pytorch_model.bin")
    with pytest.raises(ModelError, match="me/old has no weights as safetensors"):
        find_weights("hf-hub:me/old", CATALOGUE)


def test_what_transformers_has_fetched_of_a_repository_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.saved_models import save_clip

    _use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache", offline=True)
    place = tmp_path / "hub-cache" / "models--me--my-clip"
    save_clip(place / "snapshots" / COMMIT)
    _put(place, "refs", "main", COMMIT.encode())
    assert find_weights("hf-hub:me/my-clip", CATALOGUE).model == "hf-hub:me/my-clip"


def test_an_unknown_repository_is_asked_for_by_its_prefix() -> None:
    with pytest.raises(ModelError, match="no model is called zzz/qqq") as caught:
        find_weights("zzz/qqq", CATALOGUE)
    assert "--model hf-hub:zzz/qqq" in str(caught.value.hint)


def test_unknown_weights_of_a_known_architecture_list_the_known_ones() -> None:
    with pytest.raises(ModelError, match="ViT-B-32 has no weights called laion") as caught:
        find_weights("ViT-B-32/laion", CATALOGUE)
    assert LAION in str(caught.value.hint)


@pytest.mark.parametrize(("written", "near"), [("ViT-B-23/openai", "ViT-B-32/openai"), ("balancd", "balanced")])
def test_a_misspelt_name_is_answered_with_the_nearest(written: str, near: str) -> None:
    with pytest.raises(ModelError, match=f"no model is called {written}") as caught:
        find_weights(written, CATALOGUE)
    assert near in str(caught.value.hint)


# --- folders ---


def test_a_folder_gives_its_weights_and_their_sha256(tmp_path: Path) -> None:
    folder = _put(tmp_path, "mine", CONFIG).parent
    file = _put(tmp_path, "mine", SAFE_WEIGHTS, b"some weights")
    weights = find_weights(str(folder), CATALOGUE)
    assert (weights.model, weights.source) == ("local:mine", str(folder))
    assert (weights.architecture, weights.file, weights.pretrained) == (f"local-dir:{folder}", file, None)
    assert weights.fingerprint == hashlib.sha256(b"some weights").hexdigest()


def test_a_folder_without_config_or_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no model folder: it has no open_clip_config.json"):
        find_weights(str(tmp_path), CATALOGUE)
    folder = _put(tmp_path, "mine", CONFIG).parent
    with pytest.raises(ModelError, match=r"has no open_clip_model\.safetensors"):
        find_weights(str(folder), CATALOGUE)


def test_a_pickle_is_read_only_when_allowed(tmp_path: Path) -> None:
    folder = _put(tmp_path, "mine", CONFIG).parent
    pickled = _put(tmp_path, "mine", PICKLE_WEIGHTS)
    with pytest.raises(ModelError, match="only as a pickle") as caught:
        find_weights(str(folder), CATALOGUE)
    assert "--allow-pickle" in str(caught.value.hint)
    assert find_weights(str(folder), CATALOGUE, allow_pickle=True).file == pickled
    safe = _put(tmp_path, "mine", SAFE_WEIGHTS)
    assert find_weights(str(folder), CATALOGUE, allow_pickle=True).file == safe


def test_a_local_name_alone_asks_for_the_folder() -> None:
    with pytest.raises(ModelError, match="local:mine names no place"):
        find_weights("local:mine", CATALOGUE)


# --- fingerprint ---


def test_a_fingerprint_is_computed_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _put(tmp_path, "mine", SAFE_WEIGHTS, b"one")
    first = fingerprint(file)
    assert first == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(hub_module.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert fingerprint(file) == first
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    assert fingerprint(file) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'{"a": 1}'])
def test_a_damaged_fingerprint_cache_is_no_error(tmp_path: Path, content: bytes) -> None:
    cache = _put(tmp_path, "clipkit-cache/models", "fingerprints.json", content)
    file = _put(tmp_path, "mine", SAFE_WEIGHTS, b"one")
    assert fingerprint(file) == hashlib.sha256(b"one").hexdigest()
    assert str(file) in json.loads(cache.read_text())


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKIT_CACHE", str(_put(tmp_path, "a", "file") / "below"))
    assert fingerprint(_put(tmp_path, "mine", SAFE_WEIGHTS, b"one")) == hashlib.sha256(b"one").hexdigest()


# --- hub ---


def test_a_model_is_fetched_once_and_then_found_without_a_request(tmp_path: Path, hub: FakeHub) -> None:
    _put(hub.folder, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", SAFE_WEIGHTS, b"laion weights")
    lines: list[str] = []
    weights = find_weights(LAION, CATALOGUE, notify=lines.append)
    assert weights.fingerprint == hashlib.sha256(b"laion weights").hexdigest()
    assert (weights.model, weights.architecture) == (LAION, "ViT-B-32")
    assert weights.pretrained == CATALOGUE["ViT-B-32"]["laion2b_s34b_b79k"]
    assert lines == ["fetching open_clip_model.safetensors of laion/CLIP-ViT-B-32-laion2B-s34B-b79K"]
    assert any("GET" in request for request in hub.requests)
    hub.requests.clear()
    assert find_weights("fast", CATALOGUE) == weights
    assert hub.requests == []


def test_a_cached_model_is_found_offline(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(hub.folder, "timm/vit_base_patch32_clip_224.openai", SAFE_WEIGHTS)
    weights = find_weights("ViT-B-32/openai", CATALOGUE)
    _use_hub(monkeypatch, hub.url, tmp_path / "hub-cache", offline=True)
    assert find_weights("ViT-B-32/openai", CATALOGUE) == weights


def test_a_repository_loads_as_a_folder_of_one_commit(hub: FakeHub) -> None:
    _put(hub.folder, "org/repo", CONFIG, b"{}")
    _put(hub.folder, "org/repo", SAFE_WEIGHTS)
    weights = find_weights("hf-hub:org/repo", CATALOGUE)
    assert weights.model == weights.source == "hf-hub:org/repo"
    assert weights.file.parent.name == COMMIT
    assert weights.architecture == f"local-dir:{weights.file.parent}"
    assert (weights.file.parent / CONFIG).is_file()
    assert f"GET /org/repo/resolve/{COMMIT}/{SAFE_WEIGHTS}" in hub.requests


def test_a_repository_with_only_a_pickle_is_refused_until_allowed(hub: FakeHub) -> None:
    _put(hub.folder, "jienengchen/ViTamin-S", "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only as a pickle \(pytorch_model.bin\)"):
        find_weights("ViTamin-S/datacomp1b", CATALOGUE)
    assert not any("bin" in request for request in hub.requests)
    assert find_weights("ViTamin-S/datacomp1b", CATALOGUE, allow_pickle=True).file.name == "pytorch_model.bin"
    hub.requests.clear()
    find_weights("ViTamin-S/datacomp1b", CATALOGUE, allow_pickle=True)
    assert hub.requests == []  # that there is no safetensors file is remembered too


def test_a_repository_that_is_not_there_or_not_open_clips_is_named(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match="the hub has no org/none"):
        find_weights("hf-hub:org/none", CATALOGUE)
    _put(hub.folder, "org/other", "config.json")
    with pytest.raises(ModelError, match=r"org/other is no open_clip model: it has no open_clip_config.json"):
        find_weights("hf-hub:org/other", CATALOGUE)


def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # its pauses between attempts
    _put(hub.folder, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", SAFE_WEIGHTS, b"w" * 100_000)
    hub.broken.add(SAFE_WEIGHTS)
    with pytest.raises(ModelError, match="could not be fetched"):
        find_weights(LAION, CATALOGUE)
    assert not list((tmp_path / "hub-cache").rglob(SAFE_WEIGHTS))
    hub.broken.clear()
    assert find_weights(LAION, CATALOGUE).file.read_bytes() == b"w" * 100_000


def test_weights_that_changed_in_the_cache_are_refused(hub: FakeHub) -> None:
    _put(hub.folder, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", SAFE_WEIGHTS)
    find_weights(LAION, CATALOGUE).file.resolve().write_bytes(b"rotten bits")
    with pytest.raises(ModelError, match="is damaged"):
        find_weights(LAION, CATALOGUE)


def test_offline_is_said_clearly_and_nobody_is_asked(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_hub(monkeypatch, hub.url, tmp_path / "hub-cache", offline=True)
    with pytest.raises(ModelError, match="is not on this disk, and HF_HUB_OFFLINE is set") as caught:
        find_weights(LAION, CATALOGUE)
    assert "--model starter" in str(caught.value.hint)
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_given_up_after_three_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        _use_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "hub-cache")
        started = time.monotonic()
        with pytest.raises(ModelError, match="did not answer within 3 s"):
            find_weights(LAION, CATALOGUE)
        assert time.monotonic() - started < 4


def test_a_name_that_resolves_slowly_is_given_up_after_three_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_address(*_: object, **__: object) -> None:
        time.sleep(4)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", get_address)
    _use_hub(monkeypatch, "http://hub.example", tmp_path / "hub-cache")
    started = time.monotonic()
    assert hub_module.ask_hub("http://hub.example/x") is None
    assert time.monotonic() - started < 4


# --- auto ---


def test_auto_takes_the_starter_offline_and_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache", offline=True)
    lines: list[str] = []
    assert registry.choose_auto(lines.append) == "starter"
    assert len(lines) == 1
    assert "HF_HUB_OFFLINE is set" in lines[0]
    assert "--model balanced" in lines[0]


def test_auto_takes_the_starter_where_the_hub_is_out_of_reach() -> None:
    lines: list[str] = []
    assert registry.choose_auto(lines.append) == "starter"
    assert len(lines) == 1


def test_auto_takes_balanced_where_the_hub_answers_or_the_weights_are_here(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    balanced = ALIASES["balanced"]
    assert registry.choose_auto() == "starter"  # the hub answers, but it has no such file
    for repo, name in ((balanced.repo, SAFE_WEIGHTS), (balanced.tokenizer_repo, "tokenizer_config.json")):
        _put(hub.folder, str(repo), name)
    assert registry.choose_auto() == "balanced"
    assert not registry.is_cached("balanced")
    find_weights("auto", CATALOGUE)
    registry.fetch_files(str(balanced.tokenizer_repo), registry.TOKENIZER_FILES)
    assert registry.is_cached("balanced")
    _use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "hub-cache", offline=True)
    assert registry.choose_auto() == "balanced"


# --- the house ---


def test_importing_models_loads_nothing_heavy() -> None:
    heavy = ["torch", "open_clip", "transformers", "huggingface_hub", "safetensors", "PIL", "timm"]
    code = (
        f"import sys, clipkit.models.registry, clipkit.models.openclip; print([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
