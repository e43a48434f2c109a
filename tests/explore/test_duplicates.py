"""Duplicates at each level, the one to keep, and what is done with the rest."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipkit.cli.main import main
from clipkit.errors import ClipkitError
from clipkit.explore import duplicates
from clipkit.explore.duplicates import _groups_around, _Signs, find_duplicates
from clipkit.images import perceptual_hash
from clipkit.index.image_index import ImageIndex
from clipkit.output import copy_files, spare_copies
from clipkit.output.spare_copies import MOVES, make_links, move_spares, plan_links
from tests.support.colours import COLOURS, ColourEncoder


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture of soft blots of one colour: a scene of its own for every seed."""
    light = np.random.default_rng(seed).uniform(0.3, 1, (6, 8, 1))
    small = Image.fromarray((light * list(COLOURS.values())[seed]).astype(np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def album(tmp_path: Path, encoder: ColourEncoder) -> ImageIndex:
    """Six scenes; of the first a small, a mirrored and an equal copy, and of the second one taken 4 s later."""
    root = tmp_path / "album"
    (root / "old").mkdir(parents=True)
    for seed in range(6):
        scene(seed).save(root / f"{seed}.png")
    scene(0).resize((80, 60)).save(root / "small.jpg", quality=60)
    ImageOps.mirror(scene(0)).save(root / "mirror.png")
    (root / "old" / "0.png").write_bytes((root / "0.png").read_bytes())
    os.utime(root / "old" / "0.png", (10**9, 10**9))
    index = ImageIndex.create(root, encoder)
    index.update()
    return index


def names(groups: list[tuple[duplicates.Fact, ...]]) -> list[list[str]]:
    return [[group[0].path, *sorted(fact.path for fact in group[1:])] for group in groups]


def test_equal_bytes_are_exact_and_the_oldest_is_first(album: ImageIndex) -> None:
    assert names(find_duplicates(album)) == [["old/0.png", "0.png"]]


def test_near_copies_are_found_by_their_hashes_whatever_their_size_or_side(album: ImageIndex) -> None:
    assert names(find_duplicates(album, level="near")) == [["old/0.png", "0.png", "mirror.png", "small.jpg"]]


def test_the_largest_is_kept_before_the_oldest(album: ImageIndex) -> None:
    scene(0, (320, 240)).save(album.root / "large.png")
    album.update()
    assert find_duplicates(album, level="near")[0][0].path == "large.png"


def test_below_a_folder_only_what_lies_there_is_compared(album: ImageIndex) -> None:
    assert find_duplicates(album, level="near", below="old") == []


def test_without_hashes_the_cosine_decides_and_the_command_says_so(
    album: ImageIndex, capfd: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(album.store.file) as db:
        db.execute("UPDATE images SET phash = CASE WHEN path = CAST('mirror.png' AS BLOB) THEN x'00' END")
    db.close()
    assert album.store.hashes() == {}
    found = names(find_duplicates(album, level="near"))  # the mean colour of a copy is nearly the same
    assert found == [["old/0.png", "0.png", "mirror.png", "small.jpg"]]
    assert main(["duplicates", str(album.root), "--level", "near"]) == 0
    assert "9 pictures were indexed before hashes were kept" in capfd.readouterr().err


def signs(
    vectors: list[list[float]],
    *,
    hashes: list[int] | None = None,
    seconds: list[float] | None = None,
    is_burst: bool = False,
) -> _Signs:
    rows = np.array(vectors, dtype=np.float16)
    count = len(rows)
    return _Signs(
        rows,
        np.array(hashes or [0] * count, dtype=np.uint64),
        np.full(count, hashes is not None),
        np.array(seconds or [np.nan] * count),
        is_burst,
    )


def at_angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def test_a_chain_of_pictures_does_not_become_one_group() -> None:
    chain = [at_angle(15 * step) for step in range(12)]  # neighbours have a cosine of .966
    assert list(_groups_around(signs(chain), 12)) == [[step, step + 1] for step in range(0, 12, 2)]


def test_hashes_count_only_beside_a_cosine_and_within_twelve_bits() -> None:
    vectors = [at_angle(0), at_angle(40), at_angle(80)]  # cosines .77, .77 and .17
    ours = 0xF0F0_F0F0_F0F0_F0F0
    assert list(_groups_around(signs(vectors, hashes=[ours, ours ^ 0xFFF, ours]), 3)) == [[0, 1], [2]]
    assert list(_groups_around(signs(vectors, hashes=[ours, ours ^ 0x1FFF, ours]), 3)) == [[0], [1], [2]]
    mirrored = ours ^ int(perceptual_hash.MIRROR)
    assert list(_groups_around(signs(vectors, hashes=[ours, mirrored, 0]), 3)) == [[0, 1], [2]]


def test_other_hashes_speak_against_a_high_cosine() -> None:
    vectors = [at_angle(0), at_angle(10)]
    ours = 0xF0F0_F0F0_F0F0_F0F0
    assert list(_groups_around(signs(vectors, hashes=[ours, ours ^ 0xFFFFF]), 2)) == [[0, 1]]
    assert list(_groups_around(signs(vectors, hashes=[ours, ours ^ 0x1FFFFF]), 2)) == [[0], [1]]


def test_bursts_are_taken_within_ten_seconds_of_the_one_that_is_kept() -> None:
    vectors = [at_angle(0), at_angle(20), at_angle(20), at_angle(20)]
    seconds = [100.0, 110.0, 89.0, np.nan]
    groups = list(_groups_around(signs(vectors, seconds=seconds, is_burst=True), 2))
    assert groups == [[0, 1]]
    alone = [at_angle(0), at_angle(20)]
    assert list(_groups_around(signs(alone, seconds=[100.0, 89.0], is_burst=True), 2)) == [[0], [1]]
    assert list(_groups_around(signs(alone, seconds=[100.0, np.nan], is_burst=True), 2)) == [[0], [1]]
    assert list(_groups_around(signs(alone, seconds=[100.0, 101.0]), 2)) == [[0], [1]]


def test_groups_are_those_of_a_plain_loop_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "ROWS", 7)
    monkeypatch.setattr(duplicates, "COLUMNS", 5)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 3))
    rows = centres[rng.integers(0, 12, 60)] + 0.15 * rng.normal(size=(60, 3))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    free, expected = list(range(60)), []
    while free:
        group = [free[0], *(other for other in free[1:] if cosines[free[0], other] >= perceptual_hash.SAME)]
        expected.append(group)
        free = [row for row in free if row not in group]
    assert list(_groups_around(signs(vectors.tolist()), 60)) == expected


def test_a_hash_of_one_colour_says_nothing(tmp_path: Path, encoder: ColourEncoder) -> None:
    Image.new("RGB", (64, 64), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("RGB", (64, 64), (255, 190, 0)).save(tmp_path / "orange.png")
    index = ImageIndex.create(tmp_path, encoder)
    index.update()
    first, second = index.embeddings
    assert perceptual_hash.ALIKE < float(first @ second) < perceptual_hash.SAME
    assert find_duplicates(index, level="near") == []


def test_the_command_shows_levels_tables_and_records(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["duplicates", str(album.root), "--level", "near", "--csv"]) == 0
    out, err = capfd.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["keep"] for row in rows] == ["yes", "no", "no", "no"]
    assert rows[0]["path"].endswith("old/0.png")
    assert "3 pictures are nearly others" in err
    assert main(["duplicates", str(album.root), "--level", "near", "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["keep"] == record["files"][0] == str(album.root / "old" / "0.png")
    assert main(["duplicates", str(album.root), "--level", "all"]) == 2


def content(root: Path) -> dict[str, bytes]:
    files = (file for file in sorted(root.rglob("*")) if file.is_file() and ".clipkit" not in file.parts)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_the_rest_is_moved_and_a_table_says_from_where(
    album: ImageIndex, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (album.root / "small.xmp").write_text("stars")
    before, spare = content(album.root), tmp_path / "spare"
    command = ["duplicates", str(album.root), "--level", "near", "--move-to", str(spare)]
    assert main([*command, "--dry-run"]) == 0
    said = capfd.readouterr().err
    assert f"3 pictures would be moved to {spare}, with 1 file that belongs to them\n" in said
    assert content(album.root) == before
    assert not spare.exists()
    assert main(command) == 0
    moved = {name for name in content(spare) if name != MOVES}
    assert moved == {"0.png", "mirror.png", "small.jpg", "small.xmp"}
    assert {**content(album.root), **{name: content(spare)[name] for name in moved}} == before
    with open(spare / MOVES, newline="") as file:
        for row in csv.DictReader(file):
            os.rename(row["to"], row["from"])
    assert content(album.root) == before


def test_nothing_is_overwritten_and_a_failure_puts_all_back(
    album: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, spare = content(album.root), tmp_path / "spare"
    groups = find_duplicates(album, level="near")
    move: Callable[[str, Path], None] = copy_files._move_step

    def fail_at_last(source: str, target: Path) -> None:
        if source.endswith("small.jpg") and target.parent == spare:
            raise OSError(5, "the disk failed")
        move(source, target)

    monkeypatch.setitem(copy_files._DO, "move", fail_at_last)
    with pytest.raises(ClipkitError, match="everything was put back"):
        move_spares(album.root, groups, spare)
    assert content(album.root) == before
    assert not spare.exists()
    monkeypatch.setitem(copy_files._DO, "move", move)
    spare.mkdir()
    (spare / "0.png").write_bytes(b"another")
    (spare / MOVES).write_bytes(b"older")
    move_spares(album.root, groups, spare)
    assert (spare / "0.png").read_bytes() == b"another"
    assert (spare / "0 (2).png").read_bytes() == before["0.png"]
    assert (spare / MOVES).read_bytes() == b"older"


def test_no_spare_is_moved_where_the_one_to_keep_is_gone(album: ImageIndex, tmp_path: Path) -> None:
    groups = find_duplicates(album)
    os.remove(album.root / groups[0][0].path)
    with pytest.raises(ClipkitError, match="which is to be kept, is not there any more"):
        move_spares(album.root, groups, tmp_path / "spare")
    assert (album.root / "0.png").exists()


def test_hard_links_replace_equal_bytes_only(album: ImageIndex, capfd: pytest.CaptureFixture[str]) -> None:
    before = content(album.root)
    assert main(["duplicates", str(album.root), "--level", "near", "--hardlink"]) == 0
    assert "1 file is now hard links" in capfd.readouterr().err
    assert content(album.root) == before
    assert os.path.samefile(album.root / "0.png", album.root / "old" / "0.png")
    assert not os.path.samefile(album.root / "0.png", album.root / "mirror.png")
    assert plan_links(album.root, find_duplicates(album, level="near")) == []
    assert album.update().encoded == 0


def test_a_file_that_has_other_bytes_by_now_is_not_linked(album: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    (album.root / "third.png").write_bytes((album.root / "0.png").read_bytes())
    album.update()
    links = plan_links(album.root, find_duplicates(album))
    assert len(links) == 2
    last = Path(links[-1].spare)
    last.write_bytes(b"x" * last.stat().st_size)
    before = content(album.root)
    with pytest.raises(ClipkitError, match="it has other bytes by now; everything was put back"):
        make_links(links)
    assert content(album.root) == before
    assert not os.path.samefile(links[0].keep, links[0].spare)
    monkeypatch.setattr(spare_copies.os, "link", _no_links)
    with pytest.raises(ClipkitError, match="another disk"):
        make_links(links[:1])
    assert content(album.root) == before


def _no_links(*_: object, **__: object) -> None:
    raise OSError(18, "Invalid cross-device link")
