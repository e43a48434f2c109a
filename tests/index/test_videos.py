"""Videos in an index: a picture a shot, known by the stamp of its video, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from clipkit.cli.main import main
from clipkit.errors import ClipkitError, ModelError
from clipkit.explore import find_duplicates, search
from clipkit.explore.library import picture_below
from clipkit.images import formats, video
from clipkit.index import image_index, scan, update
from clipkit.index.check import check, prune
from clipkit.index.image_index import ImageIndex, plan
from clipkit.index.import_export import export, import_
from clipkit.index.vector_files import LAYOUTS
from clipkit.output import add_tags, copy_hits
from clipkit.output.copy_files import plan_moves
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.films import film

RED, GREEN, BLUE = (COLOURS[name] for name in ("red", "green", "blue"))
SHOTS = ["trip/clip.mp4#t=1.00", "trip/clip.mp4#t=3.00", "trip/clip.mp4#t=5.00"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    paint(folder / "red.png", RED)
    film(folder / "trip" / "clip.mp4", [RED, GREEN, BLUE], metadata={"creation_time": "2019-07-31T10:12:13Z"})
    return folder


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def index(root: Path, encoder: ColourEncoder) -> ImageIndex:
    index = ImageIndex.create(root, encoder)
    report = index.update(video=True)
    assert (report.found, report.encoded, report.videos, report.failed) == (4, 4, 1, ())
    return index


def settle(root: Path) -> None:
    """As if all that lies there were a minute old: a stamp proves nothing right after it was made."""
    for file in root.rglob("*.*"):
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 60 * 10**9))


def test_words_find_the_second_of_a_video(index: ImageIndex) -> None:
    assert sorted(index) == ["red.png", *SHOTS]
    hit = index.search("green", k=1)[0]
    assert (hit.path, hit.seconds, hit.file) == (SHOTS[1], 3.0, str(index.root / SHOTS[1]))
    assert index.search("./" + os.path.relpath(hit.file), k=1)[0].path == hit.path
    assert index.search("red", k=2)[0].seconds is None or index.search("red", k=2)[1].seconds is None


def test_videos_are_left_out_until_they_are_asked_for_and_remembered_then(root: Path, encoder: ColourEncoder) -> None:
    index = ImageIndex.create(root, encoder)
    assert index.update().skipped == {".mp4": 1}
    assert plan(root, video=True).videos[0].path == "trip/clip.mp4"
    assert index.update(video=True).encoded == 3
    assert index.update().found == 4
    settle(root)
    index.update()
    assert (plan(root).unchanged, plan(root).videos) == (4, ())
    assert ImageIndex.create(root, encoder, rebuild=True).update().found == 4
    assert index.update(video=False).missing == 3
    assert list(index) == ["red.png"]
    report = index.update(video=True)
    assert report.restored + report.reused == 3


def test_a_video_that_is_as_it_was_is_not_opened(
    index: ImageIndex, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(index.root)
    index.update()
    os.utime(index.root / "red.png")  # its directory entry alone
    monkeypatch.setattr(video, "PROGRAM", ("false",))
    report = index.update()
    assert (report.unchanged + report.reused, report.encoded, report.failed) == (4, 0, ())


def test_a_video_that_moved_keeps_its_embeddings(index: ImageIndex, encoder: ColourEncoder) -> None:
    ids = dict(zip(index.paths, index.ids.tolist(), strict=True))
    encoder.encoded = 0
    os.rename(index.root / "trip" / "clip.mp4", index.root / "film.mp4")
    report = index.update()
    assert (report.reused, report.missing, encoder.encoded) == (3, 0, 0)
    moved = dict(zip(index.paths, index.ids.tolist(), strict=True))
    assert moved == {path.replace("trip/clip.mp4", "film.mp4"): id_ for path, id_ in ids.items()}


def test_a_video_that_was_cut_anew_has_its_new_shots_alone(index: ImageIndex, encoder: ColourEncoder) -> None:
    encoder.encoded = 0
    film(index.root / "trip" / "clip.mp4", [RED, GREEN])
    report = index.update()
    assert sorted(index) == ["red.png", *SHOTS[:2]]
    assert report.missing == 1
    assert encoder.encoded == 2  # without a date in its metadata a frame has other bytes
    assert check(index).damage == ()


def test_a_copy_of_a_video_is_not_encoded(index: ImageIndex, encoder: ColourEncoder) -> None:
    encoder.encoded = 0
    shutil.copy(index.root / "trip" / "clip.mp4", index.root / "copy.mp4")
    assert index.update().reused >= 3
    assert encoder.encoded == 0
    assert len(index) == 7


def test_a_video_is_in_the_index_as_a_whole_or_not_at_all(
    root: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(root / "a.mp4", [RED, GREEN, BLUE] * 2)
    film(root / "z.mp4", [GREEN, BLUE] * 3)
    index, read = ImageIndex.create(root, encoder), []

    class Ended(Exception):
        """Ctrl-C at a certain picture."""

    def interrupt(progress: object) -> None:
        read.append(progress.path)  # type: ignore[attr-defined]
        if progress.path == "z.mp4#t=5.00":  # type: ignore[attr-defined]
            raise Ended

    monkeypatch.setattr(update, "COMMIT_SECONDS", 0)  # every picture is due at once
    with pytest.raises(Ended):
        index.update(video=True, progress=interrupt)
    assert {path.partition("#")[0] for path in read} == {"red.png", "a.mp4", "trip/clip.mp4", "z.mp4"}
    assert len([path for path in index if path.startswith("a.mp4")]) == 6
    assert [path for path in index if path.startswith("z.mp4")] == []
    index.update()
    assert len(index) == 1 + 6 + 3 + 6


def test_a_broken_video_is_one_failure_until_it_changes(index: ImageIndex) -> None:
    (index.root / "broken.mp4").write_bytes(b"no video")
    report = index.update()
    assert [(one.path, one.reason.startswith("Invalid")) for one in report.failed] == [("broken.mp4", True)]
    settle(index.root)
    index.update()
    assert index.update().failed == ()
    assert [one.path for one in index.update(retry_failed=True).failed] == ["broken.mp4"]
    film(index.root / "broken.mp4", [BLUE])
    assert index.update().encoded in (0, 1)  # the bytes of a blue frame may be known
    assert "broken.mp4#t=1.00" in index
    assert index.failures() == []


def test_a_video_that_is_gone_leaves_with_all_its_shots(index: ImageIndex) -> None:
    (index.root / "trip" / "clip.mp4").unlink()
    assert index.update().missing == 3
    assert prune(index, dry_run=True) == SHOTS
    assert prune(index) == SHOTS


def test_shots_of_a_video_that_is_hidden_are_not_pruned(index: ImageIndex) -> None:
    index.update(video=False)
    assert prune(index) == []


def test_without_the_extra_its_shots_stay(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, scan, image_index, video):
        monkeypatch.setattr(module, "can_read_video", lambda: False)
    report = index.update()
    assert (report.missing, report.unread_videos, len(index)) == (0, 1, 4)
    with pytest.raises(ModelError, match="PyAV") as caught:
        index.update(video=True)
    assert caught.value.hint == "pip install 'clipkit[video]'"


def test_a_sidecar_of_the_video_is_that_of_its_shots(index: ImageIndex) -> None:
    settle(index.root)
    index.update()
    assert list(add_tags([index.root / path for path in SHOTS[:2]], ["sea"])) == [index.root / "trip" / "clip.mp4.xmp"]
    assert index.update().refreshed == 3
    assert sorted(hit.path for hit in search(index, "tag:sea", encoder=ColourEncoder())) == SHOTS


def test_a_video_is_copied_once_and_not_moved_for_a_shot(index: ImageIndex, tmp_path: Path) -> None:
    hits = index.search("green", k=4)
    copies = copy_hits(hits, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["clip.mp4", "red.png"]
    assert sorted({file.name for file in copies}) == ["clip.mp4", "red.png"]
    assert len(copies) == len(hits)
    with pytest.raises(ClipkitError, match="is a frame"):
        plan_moves(index.root, SHOTS[:1], tmp_path / "elsewhere")


def test_shots_are_no_duplicates(index: ImageIndex) -> None:
    shutil.copy(index.root / "trip" / "clip.mp4", index.root / "copy.mp4")
    shutil.copy(index.root / "red.png", index.root / "red 2.png")
    index.update()
    assert [sorted(fact.path for fact in group) for group in find_duplicates(index)] == [["red 2.png", "red.png"]]


def test_a_shot_may_be_shown_where_its_video_may(index: ImageIndex, tmp_path: Path) -> None:
    root = index.root.resolve()
    assert picture_below(root, SHOTS[0]) == root / SHOTS[0]
    film(tmp_path / "outside.mp4", [RED])
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    assert picture_below(root, "link.mp4#t=1.00") is None
    assert picture_below(root, "../outside.mp4#t=1.00") is None
    assert picture_below(root, "gone.mp4#t=1.00") is None
    assert picture_below(root, "trip/clip.mp4") is None


def test_the_command_line_says_the_time(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(root), "--model", "starter", "--video"]) == 0
    assert "4 pictures can be found" in capsys.readouterr().err
    assert main(["search", "a plain green wall type:video", str(root), "--json", "--top", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["path"], answer["seconds"]) == (SHOTS[1], 3.0)
    assert main(["search", f"{root}/trip/clip.mp4", str(root)]) == 1
    assert "clip.mp4#t=0.00" in capsys.readouterr().err


def test_a_frame_can_be_named_on_the_command_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = f"{root}/trip/clip.mp4#t=3.00"
    assert main(["tag", "sea", frame]) == 0
    assert (root / "trip" / "clip.mp4.xmp").exists()
    assert main(["tag", "sea", f"{root}/gone.mp4#t=3.00"]) == 1
    assert "gone.mp4#t=3.00 is not there" in capsys.readouterr().err


def test_the_name_of_a_frame_is_said_to_be_read_as_words(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert main(["index", ".", "--model", "starter"]) == 0
    capsys.readouterr()
    assert main(["search", "trip/clip.mp4#t=3.00", "."]) == 0
    assert "for the picture: clipkit search './trip/clip.mp4#t=3.00' ." in capsys.readouterr().err


def test_a_rebuild_without_the_extra_is_refused_before_anything_is_lost(
    index: ImageIndex, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (formats, scan, image_index, video):
        monkeypatch.setattr(module, "can_read_video", lambda: False)
    with pytest.raises(ModelError, match="would not have the 1 video"):
        ImageIndex.create(index.root, encoder, rebuild=True).update()
    assert len(ImageIndex.open(index.root)) == 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shots_are_exported_by_name_and_counted_where_they_are_imported(
    index: ImageIndex, encoder: ColourEncoder, tmp_path: Path, layout: str
) -> None:
    assert export(index, tmp_path / "vectors", layout=layout) == 4
    report = import_(tmp_path / "vectors", index.root, encoder, at=tmp_path / "other")
    assert (report.imported, report.shots, report.missing) == (1, 3, ())
    assert list(ImageIndex.open(index.root, at=tmp_path / "other")) == ["red.png"]
    report = import_(tmp_path / "vectors", index.root, encoder)
    assert (report.imported, report.unchanged, report.shots) == (0, 1, 3)
    assert sorted(ImageIndex.open(index.root)) == ["red.png", *SHOTS]


def test_an_import_says_how_many_shots_it_left_out(
    index: ImageIndex,
    encoder: ColourEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("clipkit.models.load.load_encoder", lambda *_, **__: encoder)
    assert main(["export", str(index.root), str(tmp_path / "vectors")]) == 0
    assert main(["import", str(tmp_path / "vectors"), str(index.root), "--index", str(tmp_path / "other")]) == 0
    assert "3 shots of videos left out: clipkit index PHOTOS --video makes them\n" in capfd.readouterr().err
    (index.root / "red.png").unlink()
    with pytest.raises(ClipkitError, match=r"has no picture of .* but shots of videos") as caught:
        import_(tmp_path / "vectors", index.root, encoder, at=tmp_path / "third")
    assert str(caught.value.hint).endswith("--video")
