"""Heads that version 0.1 saved: they say what they said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clipkit.classify.head import Head
from tests.support.old_files import OLD_FILES

RECORD = json.loads((OLD_FILES / "heads.json").read_text())


@pytest.mark.parametrize("name", ["plain", "hidden", "rejecting"])
def test_a_saved_head_predicts_what_it_predicted(name: str) -> None:
    head, recorded = Head.load(OLD_FILES / f"head-{name}.safetensors"), RECORD[name]
    embeddings = np.array(RECORD["embeddings"], np.float32)
    assert head.predict(embeddings).tolist() == recorded["predict"]
    np.testing.assert_allclose(head.probabilities(embeddings), recorded["probabilities"], atol=1e-5)
    assert (head.space, list(head.notes)) == (recorded["space"], recorded["notes"])
    assert (head.hidden is not None, head.rejection is not None) == (name == "hidden", name == "rejecting")
    if head.rejection is not None:
        np.testing.assert_allclose(head.known(embeddings), recorded["known"], atol=1e-5)
