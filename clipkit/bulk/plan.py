"""Plan of a run: the list of pictures cut into shards, and which of them are there."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from clipkit.bulk.readers import Item
from clipkit.bulk.shards import Shards, shard_name
from clipkit.errors import IndexDamaged

FOOTERS = 16  # shards that are looked at side by side


@dataclass(frozen=True)
class PlannedShard:
    """Pictures that make one file."""

    name: str
    items: Sequence[Item] = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """What is to be done. kept: there and whole. stale: files of pictures that the list has not, or has elsewhere."""

    todo: list[PlannedShard]
    kept: list[PlannedShard]
    stale: list[str]

    @property
    def pictures_todo(self) -> int:
        """Pictures of the shards to be made."""
        return sum(len(shard.items) for shard in self.todo)

    @property
    def pictures_kept(self) -> int:
        """Pictures of the shards that are there."""
        return sum(len(shard.items) for shard in self.kept)


def cut(items: Sequence[Item], shard_rows: int) -> Iterator[Sequence[Item]]:
    """Items, sorted by path, in runs of at most `shard_rows`.

    From half of that on a run ends behind a path whose checksum says so, so that a picture which is added or taken away
    in the middle moves the borders near it, and not those of all shards behind it.
    """
    least, start = max(1, shard_rows // 2), 0
    for end, item in enumerate(items, start=1):
        rows = end - start
        is_border = zlib.crc32(item.path.encode("utf-8", "surrogateescape")) % least == 0
        if rows >= shard_rows or (rows >= least and is_border):
            yield items[start:end]
            start = end
    if start < len(items):
        yield items[start:]


def make_plan(items: Sequence[Item], shard_rows: int, shards: Shards | None, *, retry_failed: bool = False) -> Plan:
    """Which shards are to be made, and which of those that are there stay. shards: None where nothing is there.

    A shard is known by its content, whatever number it has. retry_failed: those that have an error in them are made
    again.
    """
    runs = list(cut(items, shard_rows))
    wanted = [PlannedShard(shard_name(i, [item.path for item in run]), run) for i, run in enumerate(runs)]
    every = [] if shards is None else shards.names
    there = {_content(name): name for name in every}
    found = [PlannedShard(there.get(_content(shard.name), shard.name), shard.items) for shard in wanted]
    with ThreadPoolExecutor(FOOTERS) as pool:
        stays = list(pool.map(lambda shard: _stays(shard, shards, set(there.values()), retry_failed), found))
    names = {shard.name for shard in found}
    kept = [shard for shard, is_kept in zip(found, stays, strict=True) if is_kept]
    todo = [shard for shard, is_kept in zip(found, stays, strict=True) if not is_kept]
    return Plan(todo, kept, [name for name in every if name not in names])


def _stays(shard: PlannedShard, shards: Shards | None, there: set[str], retry_failed: bool) -> bool:
    if shards is None or shard.name not in there:
        return False
    try:
        is_whole = shards.count(shard.name) == len(shard.items)
    except (IndexDamaged, OSError):
        return False
    return is_whole and not (retry_failed and any(shards.failures(shard.name)))


def _content(name: str) -> str:
    """The part of a shard's name that its pictures decide."""
    return name.rsplit("-", 1)[-1]
