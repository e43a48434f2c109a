"""Every committed number that was made with the starter, made again after it changed; `--check` names what is older."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from common import REPOSITORY, RESULTS

STARTER = REPOSITORY / "data" / "starter"
TRAINING = REPOSITORY / "training"
ACCURACY = ("zeroshot", "nouns", "corrections", "relevance", "boolean", "negation", "pets_compare")
# The starter is one of the models there.
SPEED = ("startup", "supervision", "classify", "memory", "encode", "batches", "page")
CARD = "card"  # a row of training/results.json, and the model card from it
STAMP = "starter_sha256"  # in every JSON
SHOWN = 12  # digits of it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {' '.join((CARD, *ACCURACY, *SPEED))}; all by default")
    parser.add_argument("--check", action="store_true", help="run nothing; exit 1 if a number is of other weights")
    parser.add_argument("--tried", default="as packaged, measured again", help="a sentence for training/results.json")
    options = parser.parse_args()
    names = options.names or [*ACCURACY, CARD, *SPEED]  # the card quotes the accuracy
    if unknown := set(names) - {CARD, *ACCURACY, *SPEED}:
        parser.error(f"no number here is called {', '.join(sorted(unknown))}")
    if options.check:
        older = stale(names, fingerprint())
        for name, made in older.items():
            print(f"{name}: made with {made[:SHOWN] or 'unknown'} weights, not {fingerprint()[:SHOWN]}")
        return 1 if older else 0
    if not Path(os.environ.get("CLIPKIT_TEST_DATA", "")).is_dir() or "CLIPKIT_TEST_DATA" not in os.environ:
        parser.error("CLIPKIT_TEST_DATA does not point at the photographs")
    broken = [name for name in names if not remade(name, options.tried)]
    print(f"{len(names) - len(broken)} made again with {fingerprint()[:SHOWN]}", *(f"{name} failed" for name in broken))
    return 1 if broken else 0


def fingerprint() -> str:
    """SHA-256 of the starter's weights as they are now."""
    return hashlib.sha256((STARTER / "open_clip_model.safetensors").read_bytes()).hexdigest()


def stale(names: Iterable[str], weights: str) -> dict[str, str]:
    """The numbers that were made with other weights, and with which; "" where nothing says so."""
    made = {name: made_with(name) for name in names}
    return {name: said for name, said in made.items() if said != weights}


def made_with(name: str) -> str:
    """SHA-256 of the weights that committed numbers were made with; "" where they do not say."""
    if name == CARD:
        card = (STARTER / "README.md").read_text()
        rows = json.loads((TRAINING / "results.json").read_text())
        return next((row["sha256"] for row in reversed(rows) if row["sha256"] and row["sha256"] in card), "")
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()).get(STAMP, "") if file.exists() else ""


def remade(name: str, tried: str) -> bool:
    """Whether its scripts ran; what they wrote carries the weights."""
    before = fingerprint()
    if name == CARD:
        return _ran(TRAINING / "evaluate.py", "--test", "--tried", tried) and _ran(TRAINING / "model_card.py")
    file = RESULTS / f"{name}.json"
    if not _ran(REPOSITORY / "benchmarks" / f"{name}.py") or fingerprint() != before or not file.exists():
        return False
    file.write_text(json.dumps(json.loads(file.read_text()) | {STAMP: before}, indent=1) + "\n")
    return True


def _ran(script: Path, *arguments: str) -> bool:
    print(f"== {script.relative_to(REPOSITORY)}", flush=True)
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
