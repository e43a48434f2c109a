"""The model that comes with clipkit changes with clipkit: an index of the one before is refused, never half-used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from clipkit.cli.main import main
from clipkit.models import registry
from clipkit.models.load import load_encoder


def test_an_index_of_the_starter_before_is_refused_with_the_command_that_rebuilds_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(photos), "--model", "starter"]) == 0
    newer = tmp_path / "newer"
    shutil.copytree(registry.starter_folder(), newer)
    weights = load_file(newer / registry.SAFE_WEIGHTS)
    save_file({**weights, "logit_scale": weights["logit_scale"] * 1.01}, newer / registry.SAFE_WEIGHTS)
    monkeypatch.setattr(registry, "starter_folder", lambda: newer)
    command = f"clipkit index {photos} --rebuild"
    for arguments in (["index", str(photos)], ["search", "red", str(photos)]):  # nothing new to index, all the same
        capfd.readouterr()
        assert main(arguments) == 1
        error = capfd.readouterr().err
        assert "other weights of the same name" in error
        assert f"try: {command}" in error
    scale = float(weights["logit_scale"].float().mul(1.01).exp())
    assert load_encoder("starter").logit_scale == pytest.approx(scale, rel=1e-3)  # not the export of the one before
    assert main(command.split()[1:]) == 0
    assert main(["search", "red", str(photos)]) == 0
    assert capfd.readouterr().out
