"""Model hub: files from its cache or over the network, and the fingerprint of each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from clipkit.core.files import replace_file
from clipkit.core.folders import cache_folder
from clipkit.errors import ModelError

Notify = Callable[[str], None]

# Of a model in open_clip's layout, in a repository or a folder.
CONFIG = "open_clip_config.json"
SAFE_WEIGHTS = "open_clip_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "config.json",  # names the tokenizer's class where tokenizer_config.json does not
)

HUB_SECONDS = 3.0  # a person waits this long for a machine without a network to say so

_WITHOUT_NETWORK = "--model starter works offline; or fetch the model on a machine with a network and give its folder"


class Hub:
    """Files of the model hub, in the cache that all hub tools share; no request for what is there already."""

    def __init__(self, notify: Notify | None) -> None:
        self._notify = notify
        self._has_answered = False

    def look_up(self, repo: str, name: str, revision: str | None = None) -> Path | bool:
        """The cached file; False if the hub once said that there is none; True if only the hub knows."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repo, name, revision=revision)
        return Path(found) if isinstance(found, str) else found is None

    def file(self, repo: str, name: str, revision: str | None = None) -> Path | None:
        """The file, fetched if need be; None if the repository has no such file."""
        found = self.look_up(repo, name, revision)
        if isinstance(found, Path):
            return found
        return self._download(repo, name, revision) if found else None

    def _download(self, repo: str, name: str, revision: str | None) -> Path | None:
        from huggingface_hub import errors, hf_hub_download

        self._require_network(repo, name)
        if self._notify and Path(name).suffix in (".safetensors", ".bin"):  # what takes long
            self._notify(f"fetching {name} of {repo}")
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except errors.RemoteEntryNotFoundError:
            return None
        except errors.RepositoryNotFoundError as error:
            raise ModelError(f"the hub has no {repo}, or shows it only to members", hint="clipkit models") from error
        except (_network_error(), OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ModelError(f"{name} of {repo} could not be fetched: {reason}", hint=_WITHOUT_NETWORK) from error

    def _require_network(self, repo: str, name: str) -> None:
        from huggingface_hub import constants, hf_hub_url

        if constants.HF_HUB_OFFLINE:
            raise ModelError(f"{name} of {repo} is not on this disk, and HF_HUB_OFFLINE is set", hint=_WITHOUT_NETWORK)
        if not self._has_answered and ask_hub(hf_hub_url(repo, name)) is None:
            fact = f"{name} of {repo} is not on this disk, and {constants.ENDPOINT} did not answer"
            raise ModelError(f"{fact} within {HUB_SECONDS:.0f} s", hint=_WITHOUT_NETWORK)
        self._has_answered = True


def cache_path() -> Path:
    """The folder in which the hub keeps what it fetched; other programs share it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def why_not_fetched(repo: str, name: str) -> str | None:
    """Why the hub would not give this file now, as half a sentence; None if it would."""
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    status = ask_hub(hf_hub_url(repo, name))
    if status is None:
        return f"{constants.ENDPOINT} did not answer within {HUB_SECONDS:.0f} s"
    return f"{constants.ENDPOINT} answered {status}" if status >= 400 else None


def ask_hub(url: str) -> int | None:
    """The status of one HEAD request, or None; in a thread, because nothing else bounds the time of a name look-up."""
    from huggingface_hub import get_session

    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(url, timeout=HUB_SECONDS, follow_redirects=False).status_code)
        except (_network_error(), OSError, ValueError, RuntimeError):
            return  # no answer is the answer

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return answers[0] if answers else None


def fingerprint(file: Path) -> str:
    """SHA-256 of a file, in hex; remembered by size, time and inode, since it costs half a second a gigabyte."""
    stat = file.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    cache = cache_folder() / "models" / "fingerprints.json"
    known = _read_json(cache)
    entry = known.get(str(file))
    if isinstance(entry, list) and entry[:3] == stamp and isinstance(entry[-1], str):
        return entry[-1]
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _write_json(cache, {**known, str(file): [*stamp, digest]})
    return digest


def signed(file: Path) -> str:
    """The fingerprint; where the hub named the file by its own SHA-256, the two must agree."""
    digest = fingerprint(file)
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name) and blob.name != digest:
        raise ModelError(f"{file} is damaged: its content is not what the hub sent", hint=f"delete {blob}")
    return digest


def _network_error() -> type[Exception]:
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__mro__[1]  # httpx.HTTPError or httpx2's: huggingface_hub chooses
    return base


def _read_json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(file: Path, content: dict[str, object]) -> None:
    """Whole or not at all; a cache that cannot be written is no error."""
    with suppress(OSError):
        replace_file(file, json.dumps(content).encode())
