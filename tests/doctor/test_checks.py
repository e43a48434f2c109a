"""The doctor: each fault is named with what to do about it, and none of them stops the others from being found."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

import clipkit.doctor.checks
import clipkit.doctor.engines
from clipkit.doctor.checks import Finding, examine
from clipkit.doctor.engines import Engines, ask_apart, nvidia_gpus
from clipkit.errors import ClipkitError
from clipkit.index.image_index import ImageIndex
from clipkit.models.int8 import Agreement, note_agreement
from clipkit.models.load import load_encoder
from clipkit.models.onnx import OnnxEncoder
from tests.support.colours import ColourEncoder

CPU = Engines("cpu", "float32", "AVX2", "13.0", "OPTIMIZE AVX2", 0, ("/lib/libgomp.so",))
CUDA = replace(CPU, device="cuda", precision="bfloat16", faiss_gpus=1)
FINE = {"torch": "2.15.0", "torchvision": "0.29.2", "faiss-gpu": "1.15.1"}
REQUIRES = ["torch>=2.8", "faiss-gpu>=1.15", "numpy>=2.0; python_version > '3'", 'pytest>=8.4; extra == "dev"']


class Machine:
    """What the doctor is told about a machine that is not this one."""

    def __init__(self) -> None:
        self.engines: Engines | ClipkitError = CPU
        self.gpus: list[str] = []
        self.flags = {"avx2"}
        self.versions = {**FINE, "clipkit": "0.1.0", "numpy": "2.4.6"}
        self.hub: str | None = None

    def ask(self) -> Engines:
        if isinstance(self.engines, ClipkitError):
            raise self.engines
        return self.engines

    def version(self, name: str) -> str:
        if name not in self.versions:
            raise metadata.PackageNotFoundError(name)
        return self.versions[name]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    told = Machine()
    monkeypatch.setattr(clipkit.doctor.checks, "ask_apart", told.ask)
    monkeypatch.setattr(clipkit.doctor.checks, "nvidia_gpus", lambda: told.gpus)
    monkeypatch.setattr(clipkit.doctor.checks, "cpu_flags", lambda: told.flags)
    monkeypatch.setattr(clipkit.doctor.checks.metadata, "version", told.version)
    monkeypatch.setattr(clipkit.doctor.checks.metadata, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(clipkit.doctor.checks.hub, "why_not_fetched", lambda *_: told.hub)
    monkeypatch.setattr(clipkit.doctor.checks.registry, "is_cached", lambda name: name == "starter")
    monkeypatch.setattr(
        clipkit.doctor.checks.shutil, "disk_usage", lambda _: collections.namedtuple("u", "free")(10**11)
    )
    monkeypatch.delenv("KMP_DUPLICATE_LIB_OK", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return told


def by_name(photos: Path | None = None) -> dict[str, Finding]:
    findings = examine(photos)
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    return named


def test_a_healthy_machine_has_nothing_to_be_done(machine: Machine, photos: Path, encoder: ColourEncoder) -> None:
    ImageIndex.create(photos, encoder).update()
    findings = examine(photos)
    assert [(finding.name, finding.state, finding.advice) for finding in findings] == [
        (name, "ok", "")
        for name in (
            "python", "libraries", "faiss", "torchvision", "cpu", "onnx", "gpu", "openmp", "cache", "hub cache",
            "disk of the cache", "models", "hub", "names", "photos", "disk of the index", "index",
        )
    ]  # fmt: skip


def test_this_machine_is_examined_without_loading_a_model(photos: Path) -> None:
    script = (
        "import sys; from clipkit.doctor.checks import examine\n"
        f"findings = examine({str(photos)!r})\n"
        "print([name for name in ('torch', 'open_clip', 'faiss') if name in sys.modules])\n"
        "print([f for f in findings if f.state == 'bad' and 'examined' in f.fact])\n"
        "print(*[f.fact for f in findings if f.name == 'cpu'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded, failed, cpu = done.stdout.splitlines()
    assert (loaded, failed) == ("[]", "[]")
    assert "cores, torch uses" in cpu


def test_one_failing_check_never_stops_the_others(
    machine: Machine, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_name(photos)

    def fail(*_: object) -> object:
        raise ZeroDivisionError("a fault nobody thought of")

    for name in (
        "_python",
        "_libraries",
        "_torch_packages",
        "_engines",
        "_caches",
        "_models",
        "_hub",
        "_names",
        "_index",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(clipkit.doctor.checks, name, fail)
            findings = by_name(photos)
        broken = [finding for finding in findings.values() if finding.state == "bad"]
        assert [finding.fact for finding in broken] == [
            "could not be examined: ZeroDivisionError: a fault nobody thought of"
        ]
        kept = {key: finding for key, finding in findings.items() if finding not in broken}
        assert kept.items() <= whole.items()
        assert len(kept) >= len(whole) - 4


def test_an_old_python_is_bad(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipkit.doctor.checks.platform, "python_version", lambda: "3.9.2")
    finding = by_name()["python"]
    assert (finding.state, finding.advice) == ("bad", "clipkit needs Python 3.11 or newer")


def test_libraries_below_their_floor_and_missing_ones_are_named(machine: Machine) -> None:
    machine.versions["torch"] = "2.7.1+cpu"
    machine.versions["torchvision"] = "0.22.1+cpu"
    del machine.versions["numpy"]
    findings = by_name()
    named = [finding for finding in examine() if finding.state == "bad"]
    assert [(f.name, f.fact, f.advice) for f in named] == [
        ("torch", "2.7.1+cpu is installed, and clipkit needs >=2.8", "pip install --upgrade 'torch>=2.8'"),
        ("numpy", "is not installed", "pip install 'numpy>=2.0'"),
    ]
    assert findings["libraries"].fact == "clipkit 0.1.0"


@pytest.mark.parametrize("version", ["2.9.0a0+git", "2.8.0.dev20260101"])
def test_a_build_from_before_a_release_counts_by_its_number(machine: Machine, version: str) -> None:
    machine.versions["torch"] = version
    below = version.startswith("2.8.0.dev")  # comes before 2.8
    assert ("torch" in [f.name for f in examine() if f.state == "bad" and "needs" in f.fact]) == below


def test_both_faiss_packages_at_once_are_bad(machine: Machine) -> None:
    machine.versions["faiss-cpu"] = "1.14.0"
    finding = by_name()["faiss"]
    assert finding.state == "bad"
    assert finding.fact == "faiss-cpu 1.14.0, faiss-gpu 1.15.1 are both installed: the last one won, without a word"
    assert finding.advice.startswith("pip uninstall -y faiss-cpu faiss-gpu, then pip install faiss-")


def test_no_faiss_and_an_old_one_are_bad(machine: Machine) -> None:
    del machine.versions["faiss-gpu"]
    assert by_name()["faiss"].fact == "is not installed"
    machine.versions["faiss-cpu"] = "1.9.0"
    finding = by_name()["faiss"]
    assert (finding.state, finding.advice) == ("bad", "pip install --upgrade faiss-cpu")
    machine.versions["faiss-cpu"] = "1.12.0.post1"
    assert by_name()["faiss"] == Finding("faiss", "ok", "faiss-cpu 1.12.0.post1")


@pytest.mark.parametrize(
    ("torch", "torchvision", "state"),
    [
        ("2.15.0", "0.29.2", "ok"),
        ("2.15.0+cpu", "0.29.2+cpu", "ok"),
        ("2.15.0+cpu", "0.29.2", "bad"),
        ("2.15.0", "0.29.2+cu126", "bad"),
        ("2.15.0", None, "bad"),
    ],
)
def test_torch_and_torchvision_must_come_from_one_place(
    machine: Machine, torch: str, torchvision: str | None, state: str
) -> None:
    machine.versions |= {"torch": torch, "torchvision": torchvision or ""}
    if torchvision is None:
        del machine.versions["torchvision"]
    assert by_name()["torchvision"].state == state


def test_without_torch_its_absence_is_said_and_not_a_failed_import(machine: Machine) -> None:
    del machine.versions["torch"]
    machine.engines = ClipkitError("torch and faiss cannot be imported together", hint="install again")
    assert by_name()["engines"].state == "warn"
    assert "torch is not installed" in by_name()["engines"].fact


def test_engines_that_cannot_be_imported_give_their_last_words(machine: Machine) -> None:
    machine.engines = ClipkitError("torch and faiss cannot be imported together: OMP: Error #15", hint="install again")
    findings = by_name()
    assert findings["engines"] == Finding("engines", "bad", machine.engines.message, "install again")
    assert "hub" in findings
    assert "gpu" not in findings


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "killed by signal 6"),
        ("raise ImportError('operator torchvision::nms does not exist')", "torchvision::nms does not exist"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_an_engine_that_takes_its_process_down_is_reported(
    monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setattr(clipkit.doctor.engines, "_ASK", code)
    with pytest.raises(ClipkitError, match=words):
        ask_apart()


def test_an_engine_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipkit.doctor.engines, "_ASK", "import time; time.sleep(60)")
    monkeypatch.setattr(clipkit.doctor.engines, "ANSWER_SECONDS", 0.2)
    with pytest.raises(ClipkitError, match="took more than 0 s to import"):
        ask_apart()


def test_nothing_is_imported_from_the_folder_the_user_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('planted', 'w')")
    (tmp_path / "torch.py").write_text("open('planted', 'w')")
    monkeypatch.chdir(tmp_path)
    assert ask_apart().device in ("cpu", "cuda", "mps")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("engines", "gpus", "variable", "state", "words"),
    [
        (CPU, [], None, "ok", "none: models run on the CPU"),
        (CUDA, ["GPU 0: NVIDIA H200"], None, "ok", "GPU 0: NVIDIA H200: models run on cuda in bfloat16"),
        (replace(CPU, device="mps"), [], None, "ok", "mps: models run on mps in float32"),
        (replace(CPU, cuda=None), ["GPU 0: NVIDIA H200"], None, "bad", "torch was built for the CPU alone"),
        (CPU, ["GPU 0: NVIDIA H200"], None, "bad", "torch (CUDA 13.0) cannot use it"),
        (CPU, ["GPU 0: NVIDIA H200"], "", "warn", "hidden by CUDA_VISIBLE_DEVICES=''"),
    ],
)
def test_a_gpu_that_is_there_and_not_used_is_told(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    engines: Engines,
    gpus: list[str],
    variable: str | None,
    state: str,
    words: str,
) -> None:
    machine.engines, machine.gpus = engines, gpus
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    finding = by_name()["gpu"]
    assert finding.state == state
    assert words in finding.fact
    assert bool(finding.advice) == (state != "ok")


def test_a_gpu_that_faiss_alone_cannot_use_is_a_warning(machine: Machine) -> None:
    machine.engines, machine.gpus = replace(CUDA, faiss_gpus=0), ["GPU 0: NVIDIA H200"]
    findings = by_name()
    assert findings["gpu"].state == "ok"
    assert findings["faiss gpu"].state == "warn"
    assert "pip install faiss-gpu" in findings["faiss gpu"].advice


@pytest.mark.parametrize(
    ("precision", "flags", "words"),
    [
        ("bfloat16", {"avx2", "avx512_bf16"}, "it has avx2, avx512_bf16; models run in bfloat16 (in hardware)"),
        ("bfloat16", {"amx_bf16"}, "it has amx_bf16; models run in bfloat16 (in hardware)"),
        ("float32", {"avx2"}, "models run in float32 (this CPU has no bfloat16 in hardware)"),
    ],
)
def test_the_precision_is_told_with_its_reason(machine: Machine, precision: str, flags: set[str], words: str) -> None:
    machine.engines, machine.flags = replace(CPU, precision=precision), flags
    assert words in by_name()["cpu"].fact


def test_what_onnx_runtime_computes_is_told(machine: Machine) -> None:
    machine.flags = {"avx2", "avx512_vnni"}
    assert "in int8 (--precision int8, with avx512_vnni)" in by_name()["onnx"].fact
    assert "torch" not in by_name()["onnx"].fact
    machine.engines = replace(CPU, precision="bfloat16")
    assert by_name()["onnx"].fact.endswith("transformers go on in torch, in bfloat16, where there is much to do")


def test_an_export_says_its_precision_and_what_int8_loses(machine: Machine, models: Callable[[str], Path]) -> None:
    encoder = load_encoder(str(models("clip")), precision="int8")
    assert isinstance(encoder, OnnxEncoder)
    for overlap, state in ((0.99, "ok"), (0.9, "warn")):
        note_agreement(encoder.export, Agreement(200, overlap))
        exports = [finding for finding in examine() if finding.name == "export"]
        assert {(finding.fact.partition(";")[0].rpartition(" ")[2]) for finding in exports} == {"float32", "int8"}
        told = next(finding for finding in exports if "int8" in finding.fact)
        assert (told.state, f"{overlap:.0%} of the nearest of 200" in told.fact) == (state, True)


def test_an_old_cpu_and_slow_faiss_code_are_warnings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipkit.doctor.checks.platform, "machine", lambda: "x86_64")
    machine.engines = replace(CPU, cpu="DEFAULT", faiss_code="OPTIMIZE GENERIC")
    findings = by_name()
    assert (findings["cpu"].state, findings["faiss code"].state) == ("warn", "warn")
    machine.flags = set()
    assert "faiss code" not in by_name()


def test_two_openmp_libraries_are_bad_on_a_mac_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.engines = replace(CPU, openmp=("torch/libomp.dylib", "faiss/libomp.dylib"))
    assert by_name()["openmp"].state == "ok"
    monkeypatch.setattr(clipkit.doctor.checks.platform, "system", lambda: "Darwin")
    finding = by_name()["openmp"]
    assert finding.state == "bad"
    assert "torch/libomp.dylib, faiss/libomp.dylib" in finding.fact
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "TRUE")
    finding = by_name()["openmp"]
    assert finding.state == "warn"
    assert finding.advice.startswith("unset KMP_DUPLICATE_LIB_OK")


@pytest.mark.parametrize(
    ("answer", "state", "fact"),
    [
        (None, "ok", "answers"),
        ("HF_HUB_OFFLINE is set", "ok", "was not asked: HF_HUB_OFFLINE is set"),
        (
            "https://huggingface.co did not answer within 3 s",
            "warn",
            "https://huggingface.co did not answer within 3 s",
        ),
    ],
)
def test_the_hub_is_told_as_it_answers(machine: Machine, answer: str | None, state: str, fact: str) -> None:
    machine.hub = answer
    finding = by_name()["hub"]
    assert (finding.state, finding.fact) == (state, fact)


def test_no_model_on_this_disk_is_a_warning(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name()["models"].fact == "on this disk: starter"
    monkeypatch.setattr(clipkit.doctor.checks.registry, "is_cached", lambda _: False)
    assert by_name()["models"].state == "warn"


def test_caches_are_told_with_their_sizes(
    machine: Machine, private_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (private_cache / "faiss" / "deep").mkdir(parents=True)
    (private_cache / "faiss" / "deep" / "a").write_bytes(bytes(2_500_000))
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b").write_bytes(bytes(1_000_000))
    (tmp_path / "link").symlink_to(tmp_path / "blobs" / "b")  # as the hub links its files: counted once
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    findings = by_name()
    assert findings["cache"].fact == f"{private_cache}: faiss 2.5 MB"
    assert findings["hub cache"].fact == f"{tmp_path}: 1.0 MB"


@pytest.mark.parametrize(("free", "state"), [(10**11, "ok"), (10**9, "warn"), (10**7, "bad")])
def test_a_disk_that_fills_up_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(clipkit.doctor.checks.shutil, "disk_usage", lambda _: collections.namedtuple("u", "free")(free))
    finding = by_name()["disk of the cache"]
    assert finding.state == state
    assert finding.fact.startswith(f"{free / 1e9:,.1f} GB" if free >= 10**9 else f"{free / 1e6:,.1f} MB")


def test_folders_that_cannot_be_written_are_named(
    machine: Machine, photos: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, dir: Path) -> object:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(clipkit.doctor.checks.tempfile, "TemporaryFile", refuse)
    findings = by_name(photos)
    assert findings["cache"].fact == f"{private_cache} cannot be written: Permission denied"
    assert findings["cache"].state == findings["photos"].state == "bad"
    assert findings["photos"].advice == f"keep the index elsewhere: clipkit index {photos} --index FOLDER"


def test_nothing_stays_in_the_photos(machine: Machine, photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    assert by_name(photos)["index"] == Finding("index", "ok", f"{photos} has none", f"clipkit index {photos}")
    assert sorted(photos.rglob("*")) == before


def test_the_index_is_told_with_its_counts(machine: Machine, photos: Path, encoder: ColourEncoder) -> None:
    index = ImageIndex.create(photos, encoder)
    index.update()
    (photos / "red.png").unlink()
    (photos / "bad.png").write_bytes(b"no picture")
    index.update()
    finding = by_name(photos)["index"]
    assert finding.fact == f"7 pictures, 1 missing, 1 failed; colour, revision {index.revision}"
    assert (finding.state, finding.advice) == ("ok", f"clipkit info {photos} --failed")


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "no database": lambda _: b"hello" * 1000,
    "cut short": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("how", SPOILS)
def test_a_damaged_index_is_bad(machine: Machine, photos: Path, encoder: ColourEncoder, how: str) -> None:
    ImageIndex.create(photos, encoder).update()
    file = photos / ".clipkit" / "index.db"
    file.write_bytes(SPOILS[how](file.read_bytes()))
    finding = by_name(photos)["index"]
    assert finding.state == "bad"
    assert str(file) in finding.fact
    assert finding.advice


def test_a_folder_that_is_not_there_is_said(machine: Machine, tmp_path: Path) -> None:
    assert by_name(tmp_path / "nowhere")["photos"].state == "bad"


def test_names_that_are_not_utf8_are_a_warning(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipkit.doctor.checks.locale, "getencoding", lambda: "ANSI_X3.4-1968")
    finding = by_name()["names"]
    assert finding.state == "warn"
    assert finding.fact == "file names are utf-8, text is ANSI_X3.4-1968"


def test_the_driver_is_asked_for_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    assert nvidia_gpus() == ["GPU 0: NVIDIA H200", "GPU 1: NVIDIA H200"]
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not talk to the driver'\nexit 9\n")
    assert nvidia_gpus() == []
