"""Installation checks: findings, each with what to do."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from clipkit.core.folders import cache_folder
from clipkit.core.text import counted
from clipkit.doctor.engines import Engines, ask_apart, cpu_flags, nvidia_gpus
from clipkit.errors import ClipkitError, IndexNotFound
from clipkit.index.image_index import ImageIndex
from clipkit.models import hub, registry
from clipkit.models.exports import IMAGE, TEXT, ExportedModel, all_exports
from clipkit.models.int8 import LEAST_OVERLAP, read_agreement
from clipkit.models.onnx import runtime_version

State = Literal["ok", "warn", "bad"]

FAISS = "faiss-cpu faiss-gpu faiss-gpu-cu11 faiss-gpu-cu12 faiss-gpu-cuvs".split()  # noqa: SIM905
FAISS_FLOOR = "1.12"  # what clipkit asks of faiss-cpu
COUNT_SECONDS = 1.5  # for the size of one cache
LOW_BYTES = 2 * 2**30  # the weights of `balanced` twice, or the index of a million pictures
NO_BYTES = 2**27
ONE_PLACE = "pip install --force-reinstall torch torchvision, both with the same --index-url"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. advice: what to do about it; "" where nothing is to be done."""

    name: str
    state: State
    fact: str
    advice: str = ""


def examine(photos: str | Path | None = None, *, at: str | Path | None = None) -> list[Finding]:
    """All findings, in a fixed order; no model is loaded, and nothing in `photos` is changed.

    A check that fails itself becomes a bad finding, and the others go on. torch and faiss are asked in a process of
    their own, because the faults that are looked for can take a process down.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "libraries": _libraries,
        "faiss": _faiss_packages,
        "torch": _torch_packages,
        "engines": _engines,
        "caches": _caches,
        "models": _models,
        "hub": _hub,
        "names": _names,
    }
    if photos is not None:
        folder = Path(os.path.abspath(photos))
        checks["photos"] = lambda: _photos(folder, at)
        checks["index"] = lambda: _index(folder, at)
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings.extend(check())
        except Exception as error:  # noqa: BLE001  whatever is wrong with this machine must not silence the rest
            reason = error.message if isinstance(error, ClipkitError) else f"{type(error).__name__}: {error}"
            hint = error.hint if isinstance(error, ClipkitError) else None
            findings.append(Finding(name, "bad", f"could not be examined: {reason}", hint or "report this, please"))
    return findings


def _python() -> Iterator[Finding]:
    floor = (metadata.metadata("clipkit")["Requires-Python"] or "").removeprefix(">=")
    fact = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if _version(platform.python_version()) < _version(floor):
        yield Finding("python", "bad", fact, f"clipkit needs Python {floor} or newer")
    elif sys.maxsize < 2**32:
        yield Finding("python", "bad", f"{fact}, 32 bits", "install a 64-bit Python: torch has no other")
    else:
        yield Finding("python", "ok", fact)


def _libraries() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    fine = []
    for requirement in map(Requirement, metadata.requires("clipkit") or ()):
        marker = requirement.marker
        if requirement.name in FAISS or (marker and not marker.evaluate({"extra": ""})):
            continue
        version = _installed(requirement.name)
        if version is None:
            yield Finding(
                requirement.name, "bad", "is not installed", f"pip install '{requirement.name}{requirement.specifier}'"
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            fact = f"{version} is installed, and clipkit needs {requirement.specifier}"
            yield Finding(
                requirement.name, "bad", fact, f"pip install --upgrade '{requirement.name}{requirement.specifier}'"
            )
        else:
            fine.append(f"{requirement.name} {version}")
    yield Finding("libraries", "ok", ", ".join([f"clipkit {metadata.version('clipkit')}", *fine]))


def _faiss_packages() -> Iterator[Finding]:
    found = {name: version for name in FAISS if (version := _installed(name))}
    fact = ", ".join(f"{name} {version}" for name, version in found.items())
    wanted = "faiss-gpu" if (platform.system(), platform.machine()) == ("Linux", "x86_64") else "faiss-cpu"
    if not found:
        yield Finding("faiss", "bad", "is not installed", f"pip install {wanted}")
    elif len(found) > 1:
        keep = wanted if wanted in found else next(iter(found))
        advice = f"pip uninstall -y {' '.join(found)}, then pip install {keep}: they share their files"
        yield Finding("faiss", "bad", f"{fact} are both installed: the last one won, without a word", advice)
    elif _version(next(iter(found.values()))) < _version(FAISS_FLOOR):
        yield Finding(
            "faiss", "bad", f"{fact}, and clipkit needs {FAISS_FLOOR}", f"pip install --upgrade {fact.split()[0]}"
        )
    else:
        yield Finding("faiss", "ok", fact)


def _torch_packages() -> Iterator[Finding]:
    torch, vision = _installed("torch"), _installed("torchvision")
    fact = f"torch {torch}, torchvision {vision}"
    if torch is None or vision is None:
        yield Finding("torchvision", "bad", f"{fact}: both are needed", "pip install torch torchvision")
    elif torch.partition("+")[2] != vision.partition("+")[2]:
        fact += " come from different places, and then open_clip cannot be imported (torchvision::nms)"
        yield Finding("torchvision", "bad", fact, ONE_PLACE)
    else:
        yield Finding("torchvision", "ok", fact)


def _engines() -> Iterator[Finding]:
    if _installed("torch") is None:  # the light path of docs/install.md
        fact = "torch is not installed: the starter and exported models work, learning and other models do not"
        yield Finding("engines", "warn", fact, "pip install torch open_clip_torch transformers")
        return
    try:
        engines = ask_apart()
    except ClipkitError as error:
        yield Finding("engines", "bad", error.message, error.hint or "")
        return
    yield from _judge_cpu(engines, cpu_flags())
    yield from _judge_onnx(engines, cpu_flags())
    yield from _judge_gpu(engines, nvidia_gpus())
    yield from _judge_openmp(engines)


def _judge_cpu(engines: Engines, known: set[str]) -> Iterator[Finding]:
    flags = [flag for flag in ("avx2", "avx512_bf16", "amx_bf16") if flag in known]
    fact = f"{os.cpu_count()} cores, torch uses {engines.cpu}" + (f"; it has {', '.join(flags)}" if flags else "")
    if engines.device == "cpu":
        why = "in hardware" if engines.precision == "bfloat16" else "this CPU has no bfloat16 in hardware"
        fact += f"; models run in {engines.precision} ({why})"
    is_old = platform.machine() in ("x86_64", "AMD64") and engines.cpu == "DEFAULT"
    yield Finding("cpu", "warn" if is_old else "ok", fact, "a CPU without AVX2 is slow: --model fast" if is_old else "")
    if "avx2" in flags and "AVX2" not in engines.faiss_code and "AVX512" not in engines.faiss_code:
        advice = "pip uninstall -y faiss-gpu-cu12, then pip install faiss-gpu"
        yield Finding("faiss code", "warn", f"faiss was built without AVX2 ({engines.faiss_code})", advice)


def _judge_onnx(engines: Engines, known: set[str]) -> Iterator[Finding]:
    version = runtime_version()
    if version is None:
        return  # said of the libraries
    vnni = next((flag for flag in ("avx512_vnni", "avx_vnni") if flag in known), None)
    fact = f"ONNX Runtime {version} computes on the CPU in float32, or in int8 (--precision int8"
    fact += f", with {vnni})" if vnni else ")"
    if engines.device == "cpu" and engines.precision == "bfloat16":
        fact += "; transformers go on in torch, in bfloat16, where there is much to do"
    yield Finding("onnx", "ok", fact)


def _judge_gpu(engines: Engines, gpus: list[str]) -> Iterator[Finding]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if engines.device != "cpu":
        name = ", ".join(gpus) or engines.device
        yield Finding("gpu", "ok", f"{name}: models run on {engines.device} in {engines.precision}")
    elif not gpus:
        yield Finding("gpu", "ok", "none: models run on the CPU")
    elif hidden is not None and hidden.strip() in ("", "-1"):
        fact = f"{', '.join(gpus)} is hidden by CUDA_VISIBLE_DEVICES={hidden!r}"
        yield Finding("gpu", "warn", fact, "unset CUDA_VISIBLE_DEVICES")
    elif engines.cuda is None:
        advice = "pip install --force-reinstall torch torchvision: the usual build has CUDA"
        yield Finding("gpu", "bad", f"{', '.join(gpus)} is there, and torch was built for the CPU alone", advice)
    else:
        fact = f"{', '.join(gpus)} is there, and torch (CUDA {engines.cuda}) cannot use it"
        yield Finding(
            "gpu", "bad", fact, f"update the driver to one for CUDA {engines.cuda}: nvidia-smi names its limit"
        )
    if gpus and engines.device == "cuda" and not engines.faiss_gpus:
        advice = "searching works on the CPU; for the GPU: pip uninstall -y faiss-cpu, then pip install faiss-gpu"
        yield Finding("faiss gpu", "warn", "faiss cannot use the GPU that torch uses", advice)


def _judge_openmp(engines: Engines) -> Iterator[Finding]:
    fact = ", ".join(engines.openmp) or "none"
    if os.environ.get("KMP_DUPLICATE_LIB_OK", "").upper() in ("1", "TRUE", "YES"):
        advice = "unset KMP_DUPLICATE_LIB_OK: it hides a clash that can give wrong numbers"
        yield Finding("openmp", "warn", f"KMP_DUPLICATE_LIB_OK is set; loaded: {fact}", advice)
    elif platform.system() == "Darwin" and len(engines.openmp) > 1:
        advice = "install torch and faiss-cpu from one place (conda-forge); until then OMP_NUM_THREADS=1"
        yield Finding("openmp", "bad", f"two OpenMP libraries in one process, which can crash: {fact}", advice)
    else:
        yield Finding("openmp", "ok", fact)


def _caches() -> Iterator[Finding]:
    own = cache_folder()
    parts = {name: _size(own / name) for name in ("faiss", "thumbs", "models", "exports", "texts")}
    sizes = ", ".join(f"{name} {size}" for name, size in parts.items() if size)
    yield _writable("cache", own, f"{own}: {sizes or 'empty'}", "set CLIPKIT_CACHE to a folder that you may write")
    hub_folder = hub.cache_path()
    yield Finding("hub cache", "ok", f"{hub_folder}: {_size(hub_folder) or 'empty'}")
    yield _space("disk of the cache", own)


def _models() -> Iterator[Finding]:
    here = [name for name in registry.ALIASES if registry.is_cached(name)]
    if here:
        yield Finding("models", "ok", f"on this disk: {', '.join(here)}")
    else:
        yield Finding("models", "warn", "none is on this disk", "clipkit index --model fast, once, with a network")
    for export in all_exports():
        if not {IMAGE, TEXT} <= set(export.graphs):
            what = "its image tower" if TEXT in export.graphs else "its text tower" if IMAGE in export.graphs else "it"
            advice = "nothing: torch computes it, and the first answer takes as long as torch takes to load"
            yield Finding("export", "warn", f"{export.model}: {what} could not be exported to ONNX", advice)
        else:
            yield _precision_of(export)


def _precision_of(export: ExportedModel) -> Finding:
    fact = f"{export.model}: ONNX in {export.precision}"
    agreement = read_agreement(export)
    if agreement is not None:
        fact += f"; {agreement.overlap:.0%} of the nearest of {agreement.pictures} pictures are those of float32"
    is_fine = agreement is None or agreement.overlap >= LEAST_OVERLAP
    return Finding("export", "ok" if is_fine else "warn", fact, "" if is_fine else "--precision float32")


def _hub() -> Iterator[Finding]:
    reason = hub.why_not_fetched(registry.ALIASES["balanced"].repo or "", registry.SAFE_WEIGHTS)
    if reason is None:
        yield Finding("hub", "ok", "answers")
    elif "HF_HUB_OFFLINE" in reason:
        yield Finding("hub", "ok", f"was not asked: {reason}")
    else:
        yield Finding(
            "hub", "warn", reason, "models that are on this disk work; for others check network and HF_ENDPOINT"
        )


def _names() -> Iterator[Finding]:
    encodings = (sys.getfilesystemencoding(), locale.getencoding())
    fact = f"file names are {encodings[0]}, text is {encodings[1]}"
    is_fine = all(encoding.lower().replace("-", "") == "utf8" for encoding in encodings)
    advice = "" if is_fine else "set PYTHONUTF8=1" if os.name == "nt" else "export LC_ALL=C.UTF-8"
    yield Finding("names", "ok" if is_fine else "warn", fact, advice)


def _photos(folder: Path, at: str | Path | None) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("photos", "bad", f"{folder} is not a folder that is there", "clipkit doctor FOLDER")
        return
    place = Path(at) if at is not None else folder / ".clipkit"
    advice = f"keep the index elsewhere: clipkit index {folder} --index FOLDER"
    yield _writable("photos", place, f"{place} can be written", advice)
    yield _space("disk of the index", place)


def _index(folder: Path, at: str | Path | None) -> Iterator[Finding]:
    try:
        index = ImageIndex.open(folder, at=at)
        counts, revision = index.counts(), index.revision
        index.store.check_structure()
    except IndexNotFound:
        yield Finding("index", "ok", f"{folder} has none", f"clipkit index {folder}")
    except ClipkitError as error:
        yield Finding("index", "bad", error.message, error.hint or "clipkit check")
    else:
        fact = f"{counted(counts['ok'], 'picture')}, {counts['missing']:,} missing, {counts['failed']:,} failed"
        advice = f"clipkit info {folder} --failed" if counts["failed"] else ""
        yield Finding("index", "ok", f"{fact}; {index.model}, revision {revision}", advice)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _writable(name: str, folder: Path, fact: str, advice: str) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as stream:
            stream.write(b"clipkit")
            stream.flush()
    except OSError as error:
        return Finding(name, "bad", f"{folder} cannot be written: {error.strerror or error}", advice)
    return Finding(name, "ok", fact)


def _space(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    fact = f"{_bytes(free)} free for {folder}"
    if free >= LOW_BYTES:
        return Finding(name, "ok", fact)
    return Finding(
        name, "bad" if free < NO_BYTES else "warn", fact, "free some space; caches may be deleted at any time"
    )


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _size(folder: Path) -> str:
    total, deadline = 0, time.monotonic() + COUNT_SECONDS
    for base, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(base, name)).st_size  # a link's own: the hub's cache is full of them
        if time.monotonic() > deadline:
            return f"more than {_bytes(total)}"
    return _bytes(total) if total else ""


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
