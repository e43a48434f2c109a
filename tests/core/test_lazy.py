"""Lazy package exports: nothing is imported before its name is used, and then once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

INIT = """
from clipkit.core.lazy import lazy_exports
__getattr__, __dir__ = lazy_exports(__name__, {"answer": "answers", "absent": "answers"})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package that exports `answer` and, wrongly, `absent` of its module `answers`."""
    folder = tmp_path / "lazy_sample"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "answers.py").write_text("answer = [42]\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_sample  # type: ignore[import-not-found]

    yield lazy_sample
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazy_sample"]:
        del sys.modules[name]


def test_a_module_is_imported_when_its_name_is_used(package: ModuleType) -> None:
    assert "lazy_sample.answers" not in sys.modules
    assert package.answer == [42]
    assert "lazy_sample.answers" in sys.modules


def test_a_name_is_looked_up_once(package: ModuleType) -> None:
    first = package.answer
    sys.modules["lazy_sample.answers"].answer = [43]  # type: ignore[attr-defined]
    assert package.answer is first


def test_from_import_and_dir_know_the_exported_names(package: ModuleType) -> None:
    from lazy_sample import answer

    assert answer == [42]
    assert dir(package) == ["absent", "answer"]


def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="module 'lazy_sample' has no attribute 'question'"):
        _ = package.question
    assert not hasattr(package, "question")
    with pytest.raises(AttributeError, match="absent"):  # its module does not define it
        _ = package.absent


def test_the_public_packages_are_attributes_without_being_imported() -> None:
    script = "import sys, clipkit\nbefore = 'clipkit.plot' in sys.modules\nprint(before, clipkit.plot.__name__)\n"
    script += "print({'plot', 'learn', 'metrics'} <= set(dir(clipkit)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False clipkit.plot", "True"]


WITHOUT = """
import sys
for name in ("torch", "sklearn"):
    sys.modules[name] = None  # import says ModuleNotFoundError of that name
import clipkit

def message(act):
    try:
        act()
    except clipkit.ClipkitError as error:
        assert isinstance(error, ModuleNotFoundError)
        return f"{error.message} | {error.hint}"

print(message(lambda: clipkit.LinearProbe))
print(message(lambda: clipkit.learn.AdaptRecipe))
print(message(lambda: clipkit.finetune(None, None)))
print(message(lambda: clipkit.load_dataset("oxford-iiit-pet", download=True)))  # by torchvision, which needs it
print(hasattr(clipkit, "nothing"), clipkit.Hit.__name__)
"""


def test_a_name_whose_package_is_missing_says_what_to_install() -> None:
    """As after the light path of docs/install.md: in Python the sentence of the command line."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    scikit_learn, torch, *called, others = done.stdout.splitlines()
    assert scikit_learn.startswith("this needs scikit-learn, which is not installed | pip install 'scikit-learn>=")
    assert torch.startswith("this needs torch, which is not installed | pip install 'torch>=")
    assert called == [torch, torch]
    assert others == "False Hit"


def test_a_missing_module_that_no_requirement_brings_stays_what_it_is(package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "lazy_sample" / "answers.py").write_text("import no_package_of_ours\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_package_of_ours'"):
        _ = package.answer
