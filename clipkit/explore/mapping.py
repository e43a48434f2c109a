"""Map of a collection: its pictures in two dimensions, alike ones near one another, in clusters that have names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipkit.core.arrays import Embeddings, FloatArray, IntArray
from clipkit.core.text import counted, described, some
from clipkit.errors import QueryError
from clipkit.explore.relevance import embed_vocabulary, standing_of_phrases, vocabulary
from clipkit.index.image_index import ImageIndex
from clipkit.index.paths import filter_for
from clipkit.models.encoder import Encoder

if TYPE_CHECKING:
    import pandas as pd

LANDMARKS = 5_000  # pictures that are laid out; the others are placed between the nearest of them
COMPONENTS = 50  # of the PCA before t-SNE
PERPLEXITY = 30.0
NEAREST, SHARPNESS = 5, 0.02  # landmarks that place a picture, and the cosine by which their weights fall to 1/e
FEWEST = 5  # pictures that can be laid out by t-SNE
SMALLEST = 5  # pictures of a cluster
NEIGHBORS = 10  # whose cosines say how much of an outlier a picture is
BLOCK = 4_096
USUAL = 0.5  # share of what a phrase says of the whole collection that is taken off what it says of a cluster
OUTLIER = -1

Half = npt.NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Map:
    """Pictures of a collection in two dimensions, as `map_collection` makes it.

    Attributes
    ----------
    ids : ndarray of shape (n,), int64
        In the index.
    paths : tuple of str
        Relative to the root.
    positions : ndarray of shape (n, 2), float32
        From 0 to 1.
    clusters : ndarray of shape (n,), int64
        Number of the cluster of each picture, -1 for outliers.
    names : tuple of str
        Of the clusters: the phrase that fits each best, no two the same.
    outliers : tuple of int
        Rows of the pictures without a cluster, the least like any other first.

    Examples
    --------
    >>> from clipkit.explore import map_collection
    >>> found = map_collection(clipkit.ImageIndex.open("photos"))
    >>> found.positions.shape, len(found.clusters)
    ((4, 2), 4)
    """

    ids: IntArray
    paths: tuple[str, ...]
    positions: FloatArray
    clusters: IntArray
    names: tuple[str, ...]
    outliers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        clusters = f"{counted(len(self.names), 'cluster')}: {some(self.names)}"
        return described(self, counted(len(self), "picture"), clusters, counted(len(self.outliers), "outlier"))

    def to_frame(self) -> pd.DataFrame:
        """The pictures as a pandas table.

        Returns
        -------
        pandas.DataFrame
            With the columns path, x, y and cluster (its name, None for outliers); its index is the pictures' ids.

        Examples
        --------
        >>> from clipkit.explore import map_collection
        >>> map_collection(clipkit.ImageIndex.open("photos")).to_frame().columns.tolist()
        ['path', 'x', 'y', 'cluster']
        """
        import pandas as pd

        names = [None if one == OUTLIER else self.names[one] for one in self.clusters.tolist()]
        columns = {"path": self.paths, "x": self.positions[:, 0], "y": self.positions[:, 1], "cluster": names}
        return pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))


def map_collection(index: ImageIndex, *, below: str = "", encoder: Encoder | None = None, seed: int = 0) -> Map:
    """Lay the pictures of an index out in two dimensions, in clusters that have names.

    By UMAP where umap-learn is installed, else by PCA and t-SNE; of more than 5,000 pictures a sample is laid out, and
    each other lies between the pictures of the sample that it is most like. Clusters are HDBSCAN's.

    Parameters
    ----------
    index : ImageIndex
        What is laid out.
    below : str, optional
        Only that folder, relative to the root.
    encoder : Encoder, optional
        Instead of the index's own; it reads the vocabulary that clusters are named from.
    seed : int, default 0
        Of the sample and the layout.

    Returns
    -------
    Map
        Positions, clusters and their names.

    Raises
    ------
    QueryError
        If there is no picture.

    References
    ----------
    .. [1] L. van der Maaten, G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    .. [2] R. Campello, D. Moulavi, J. Sander, "Density-Based Clustering Based on Hierarchical Density Estimates", 2013.

    Examples
    --------
    >>> from clipkit.explore import map_collection
    >>> found = map_collection(clipkit.ImageIndex.open("photos"))
    >>> sorted(found.paths)[0], len(found.names)
    ('astronaut.png', 1)
    """
    ids, paths, vectors = _pictures(index, below)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(ids))[:LANDMARKS])
    landmarks = vectors[chosen].astype(np.float32)
    layout = _scaled(lay_out(landmarks, seed))
    groups = find_clusters(layout)
    positions, clusters, likeness = _place(vectors, landmarks, layout, groups)
    positions[chosen], clusters[chosen] = layout, groups
    phrases = embed_vocabulary(encoder or index.query_encoder)
    names = name_clusters(vectors, clusters, phrases)
    lonely = np.flatnonzero(clusters == OUTLIER)
    outliers = lonely[np.argsort(likeness[lonely], kind="stable")]
    return Map(ids, paths, positions, clusters, names, tuple(outliers.tolist()))


def lay_out(embeddings: Embeddings, seed: int) -> FloatArray:
    """Positions (n, 2) of embeddings (n, d), alike ones near one another."""
    if len(embeddings) < FEWEST:
        return _principal(embeddings, 2)
    if find_spec("umap") is not None:
        import umap

        neighbors = min(15, len(embeddings) - 1)
        return np.asarray(umap.UMAP(n_neighbors=neighbors, random_state=seed).fit_transform(embeddings), np.float32)
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=-1)
    return np.asarray(layout.fit_transform(_principal(embeddings, COMPONENTS)), dtype=np.float32)


def find_clusters(layout: FloatArray) -> IntArray:
    """The cluster (n,) of each position (n, 2), from 0, the largest first; -1 for outliers. One where there is none."""
    smallest = max(SMALLEST, round(len(layout) ** 0.5 / 2))
    if len(layout) < 2 * smallest:
        return np.zeros(len(layout), dtype=np.int64)
    from sklearn.cluster import HDBSCAN

    engine = HDBSCAN(min_cluster_size=smallest, min_samples=SMALLEST, cluster_selection_method="leaf", copy=True)
    found = np.asarray(engine.fit_predict(layout), dtype=np.int64)
    if not (found >= 0).any():  # no part of it is denser than the rest
        return np.zeros(len(layout), dtype=np.int64)
    sizes = np.bincount(found[found >= 0])
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(found >= 0, rank[found], OUTLIER)


def name_clusters(vectors: Half, clusters: IntArray, phrases: Embeddings) -> tuple[str, ...]:
    """A phrase for each cluster of vectors (n, d), by how far it stands above the others there; no two the same.

    phrases (v, d): of the vocabulary. A phrase that says much of the whole collection counts less.
    """
    count = int(clusters.max(initial=OUTLIER)) + 1
    sums = np.zeros((count + 1, len(phrases)), dtype=np.float64)  # the last row: outliers
    sizes = np.zeros(count + 1, dtype=np.int64)
    for start in range(0, len(vectors), BLOCK):
        standing = standing_of_phrases(vectors[start : start + BLOCK].astype(np.float32), phrases)
        of_block = clusters[start : start + BLOCK]
        is_of = of_block[None] == np.append(np.arange(count), OUTLIER)[:, None]
        sums += is_of.astype(np.float32) @ standing
        sizes += is_of.sum(axis=1)
    means = sums[:count] / np.maximum(sizes[:count, None], 1) - USUAL * sums.sum(axis=0) / max(1, len(vectors))
    return tuple(_different(means))


def _different(means: npt.NDArray[np.float64]) -> list[str]:
    """For each row the phrase of the highest value that no earlier row has, as far as there are phrases."""
    words, taken, names = vocabulary(), set[int](), []
    for row in means:
        order = np.argsort(-row, kind="stable").tolist()
        best = next((one for one in order if one not in taken), order[0])
        taken.add(best)
        names.append(words[best])
    return names


def _pictures(index: ImageIndex, below: str) -> tuple[IntArray, tuple[str, ...], Half]:
    """Ids (n,), paths and vectors (n, d) of what lies below that folder."""
    _, paths = index.store.paths()
    is_chosen = filter_for(paths.values(), below)
    wanted = {id_: path for id_, path in paths.items() if is_chosen is None or is_chosen(path)}
    ids, vectors = [], []
    for _, block, rows in index.store.blocks():
        is_wanted = np.fromiter((id_ in wanted for id_ in block.tolist()), np.bool_, len(block))
        ids.append(block[is_wanted])
        vectors.append(rows[is_wanted])
    found = np.concatenate(ids)
    if not len(found):
        raise QueryError(f"no pictures are indexed in {index.root}", hint="clipkit index first")
    return found, tuple(wanted[id_] for id_ in found.tolist()), np.concatenate(vectors)


def _principal(embeddings: Embeddings, components: int) -> FloatArray:
    """The first principal components (n, components) of embeddings (n, d); zeros where there are fewer."""
    from sklearn.decomposition import PCA

    count = min(components, *embeddings.shape)
    found = np.zeros((len(embeddings), components), dtype=np.float32)
    if len(embeddings) > 1:
        found[:, :count] = PCA(count, random_state=0).fit_transform(embeddings)
    return found


def _scaled(layout: FloatArray) -> FloatArray:
    """The same between 0 and 1, in its proportions."""
    low, high = layout.min(axis=0), layout.max(axis=0)
    span = float((high - low).max()) or 1.0
    return np.asarray((layout - (low + high) / 2) / span + 0.5, dtype=np.float32)


def _place(
    vectors: Half, landmarks: Embeddings, layout: FloatArray, groups: IntArray
) -> tuple[FloatArray, IntArray, FloatArray]:
    """Position (n, 2), cluster (n,), and mean cosine with its nearest landmarks (n,) of every vector (n, d)."""
    nearest = min(NEIGHBORS, len(landmarks))
    positions = np.empty((len(vectors), 2), dtype=np.float32)
    clusters = np.empty(len(vectors), dtype=np.int64)
    likeness = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = slice(start, start + BLOCK)
        cosines = vectors[block].astype(np.float32) @ landmarks.T
        found = np.argpartition(-cosines, nearest - 1, axis=1)[:, :nearest]
        scores = np.take_along_axis(cosines, found, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        found, scores = np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)
        weights = np.exp((scores[:, :NEAREST] - scores[:, :1]) / SHARPNESS)[..., None]
        positions[block] = (layout[found[:, :NEAREST]] * weights).sum(axis=1) / weights.sum(axis=1)
        clusters[block] = groups[found[:, 0]]
        likeness[block] = scores.mean(axis=1)
    return positions, clusters, likeness
