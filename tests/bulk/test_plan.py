"""The plan of a run: where the list is cut, and what stays."""

from __future__ import annotations

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.bulk.plan import cut, make_plan
from clipkit.bulk.readers import Item

NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, max_size=200).map(sorted)


@settings(deadline=None)
@given(NAMES, st.integers(1, 30))
def test_a_list_is_cut_into_runs_that_are_not_too_long_and_lose_nothing(names: list[str], rows: int) -> None:
    items = [Item(name) for name in names]
    runs = list(cut(items, rows))
    assert list(chain.from_iterable(runs)) == items
    assert all(1 <= len(run) <= rows for run in runs)
    assert all(len(run) >= rows // 2 for run in runs[:-1])


def test_a_picture_more_moves_the_borders_near_it_alone() -> None:
    names = [f"{number:05d}.jpg" for number in range(10_000)]
    before = {shard.name for shard in make_plan([Item(n) for n in names], 100, None).todo}
    moved = []
    for number in range(50, 10_000, 500):
        more = sorted([*names, f"{number:05d}b.jpg"])
        contents = {shard.name.rsplit("-")[-1] for shard in make_plan([Item(n) for n in more], 100, None).todo}
        moved.append(len({name.rsplit("-")[-1] for name in before} - contents))
    assert sum(moved) / len(moved) < 4
    assert max(moved) < 20 < len(before)


def test_a_name_that_is_no_unicode_has_its_place() -> None:
    [shard] = make_plan([Item("a\udcff.jpg"), Item("b.jpg")], 10, None).todo
    assert [item.path for item in shard.items] == ["a\udcff.jpg", "b.jpg"]
