"""Datasets of labelled or captioned pictures: loading, splitting, sampling, embedding.

- `load_dataset`: pictures and labels from the layouts people have them in.
- `Dataset`: pictures and what is known of each.
- `read_split`: a dataset in train, validation and test.
- `Split`: what `read_split` gives; test labels are apart.
- `split_validation`: a share of each class held out.
- `held_back`: positions of a fifth of each class, to choose settings on.
- `draw_shots`: a few pictures of each class, drawn by a seed.
- `embed_once`: embeddings of a dataset, cached on disk.
- `EmbeddedDataset`: a dataset and its embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.core.lazy import lazy_exports

if TYPE_CHECKING:
    from clipkit.datasets.embed import EmbeddedDataset as EmbeddedDataset
    from clipkit.datasets.embed import embed_once as embed_once
    from clipkit.datasets.load import Dataset as Dataset
    from clipkit.datasets.load import load_dataset as load_dataset
    from clipkit.datasets.sampling import draw_shots as draw_shots
    from clipkit.datasets.sampling import held_back as held_back
    from clipkit.datasets.sampling import split_validation as split_validation
    from clipkit.datasets.splits import Split as Split
    from clipkit.datasets.splits import read_split as read_split

_HOMES = {
    "Dataset": "load",
    "EmbeddedDataset": "embed",
    "Split": "splits",
    "draw_shots": "sampling",
    "embed_once": "embed",
    "held_back": "sampling",
    "load_dataset": "load",
    "read_split": "splits",
    "split_validation": "sampling",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
