"""Frames of videos: one a shot, upright, with date and place; what cannot be decoded costs its video alone."""

from __future__ import annotations

import os
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from clipkit.errors import ImageError
from clipkit.images import video
from clipkit.images.decode import metadata, read_file
from clipkit.images.formats import file_of, frame_name, is_picture, split_frame
from clipkit.images.thumbnails import thumbnail
from clipkit.images.video import frame, shots
from tests.support.films import film

RED, GREEN, BLUE = (200, 0, 0), (0, 160, 0), (0, 0, 200)


def colour(jpeg: bytes) -> str:
    rows = np.asarray(Image.open(BytesIO(jpeg)).convert("RGB")).reshape(-1, 3).mean(0)
    return ("red", "green", "blue")[int(rows.argmax())]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".mov", "mpeg4"), (".mkv", "mpeg4"), (".webm", "libvpx"), (".avi", "mjpeg")],
)
def test_a_shot_gives_the_frame_in_its_middle(tmp_path: Path, suffix: str, codec: str) -> None:
    file = str(film(tmp_path / f"clip{suffix}", [RED, GREEN, BLUE, BLUE], codec=codec))
    found = list(shots(file))
    assert [colour(one.jpeg) for one in found] == ["red", "green", "blue"]
    assert [round(one.seconds, 2) for one in found] == [1.0, 3.0, 6.0]


def test_a_frame_is_that_of_its_time(tmp_path: Path) -> None:
    file = str(film(tmp_path / "clip.mp4", [RED, GREEN, BLUE]))
    assert [colour(frame(file, seconds)) for seconds in (0.0, 1.9, 2.0, 3.95, 4.05, 5.9, 60.0)] == [
        *("red", "red", "green", "green", "blue", "blue", "blue")
    ]
    assert colour(read_file(frame_name(file, 2.5))) == "green"
    assert [colour(one.jpeg) == colour(frame(file, one.seconds)) for one in shots(file)] == [True] * 3


def test_every_shot_is_what_its_name_says(tmp_path: Path) -> None:
    """Names have two digits, and frames of 30 a second begin between them."""
    file = str(film(tmp_path / "clip.mp4", [RED, GREEN], seconds=1.7))
    for one in shots(file):
        assert read_file(frame_name(file, one.seconds)) == one.jpeg


def test_a_shot_is_shown_although_its_format_is_sought_by_decoding_times(tmp_path: Path) -> None:
    """In MPEG-TS the key frame after a cut is met before the one ahead of it."""
    file = str(film(tmp_path / "clip.mts", [RED, GREEN, BLUE], codec="libx264", seconds=2.1, fps=25))
    assert [colour(one.jpeg) for one in shots(file)] == ["red", "green", "blue"]


@pytest.mark.parametrize(("name", "start"), [("clip.mkv", 1_700_000_000), ("clip.mts", 3600), ("clip.mp4", 3600)])
def test_times_are_counted_from_the_beginning(tmp_path: Path, name: str, start: int) -> None:
    """A recorder's clock may begin anywhere."""
    file = str(film(tmp_path / name, [RED, GREEN, BLUE], start=start))
    assert [(colour(one.jpeg), one.seconds) for one in shots(file)] == [("red", 1.0), ("green", 3.0), ("blue", 5.0)]
    assert colour(frame(file, 2.5)) == "green"


def test_no_two_shots_have_one_name(tmp_path: Path) -> None:
    file = str(film(tmp_path / "clip.mkv", [RED, GREEN, BLUE] * 20, codec="mjpeg", fps=200, seconds=1 / 200))
    found = list(shots(file))
    names = [frame_name(file, one.seconds) for one in found]
    assert len(set(names)) == len(names) == 30  # hundredths of 0.3 s
    assert [read_file(name) for name in names] == [one.jpeg for one in found]


def test_a_scene_that_moves_a_little_is_one_shot(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 255, (6, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 48 x 80
    moving = [scene[:, i : i + 64].copy() for i in (0, 1, 2)]
    other = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    assert len(list(shots(str(film(tmp_path / "clip.mp4", [*moving, other]))))) == 2


@pytest.mark.parametrize(("rotation", "place"), [(0, (10, 10)), (90, (37, 10)), (180, (53, 37)), (270, (10, 53))])
def test_a_phone_held_upright_films_upright(tmp_path: Path, rotation: int, place: tuple[int, int]) -> None:
    image = Image.new("RGB", (64, 48), BLUE)
    ImageDraw.Draw(image).rectangle((0, 0, 24, 20), fill=RED)  # at the upper left of the sensor
    file = film(tmp_path / "clip.mp4", [np.asarray(image)], rotation=rotation)
    found = Image.open(BytesIO(frame(str(file), 0)))
    assert found.size == ((64, 48) if rotation in (0, 180) else (48, 64))
    assert np.argmax(found.getpixel(place)) == 0
    assert thumbnail(frame_name(str(file), 0), 256).width == found.width


def test_date_and_place_are_those_of_the_video(tmp_path: Path) -> None:
    said = {"creation_time": "2019-07-31T10:12:13.000000Z", "location": "-33.8700+151.2100/"}
    name = frame_name(str(film(tmp_path / "clip.mov", [RED], metadata=said)), 1)
    read = metadata(read_file(name), name=name)
    assert read.taken_at == "2019-07-31T10:12:13"
    assert (round(read.latitude or 0, 3), round(read.longitude or 0, 3)) == (-33.87, 151.21)
    assert metadata(read_file(frame_name(str(film(tmp_path / "b.mov", [RED])), 0)), name="b").taken_at is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no video",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.mp4\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile other.mp4\n",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
    ],
)
def test_what_is_no_video_says_so_and_opens_no_other_file(tmp_path: Path, content: bytes) -> None:
    film(tmp_path / "other.mp4", [RED])
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(ImageError, match=r"clip\.mp4: Invalid"):
        list(shots(str(tmp_path / "clip.mp4")))


def test_a_video_that_was_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    file = film(tmp_path / "clip.mkv", [RED, GREEN, BLUE])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert colour(next(shots(str(file))).jpeg) == "red"


def test_sound_alone_has_no_picture(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ImageError, match="no picture in it"):
        list(shots(str(tmp_path / "clip.mp4")))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed with SIGSEGV"),
        ("raise MemoryError", "failed"),
        ("import time; time.sleep(60)", "hangs"),
    ],
)
def test_a_decoder_that_dies_or_hangs_costs_its_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr(video, "PROGRAM", (sys.executable, "-c", program))
    monkeypatch.setattr(video, "HANG_SECONDS", 0.5)
    with pytest.raises(ImageError, match=f"its decoder {said}"):
        list(shots(str(tmp_path / "clip.mp4")))


def test_nobody_waits_for_a_video_that_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = str(film(tmp_path / "clip.mp4", [RED, GREEN, BLUE]))
    found = shots(file)
    assert colour(next(found).jpeg) == "red"
    found.close()  # the process is gone: ResourceWarning is an error here


def test_names_of_frames_are_no_others(tmp_path: Path) -> None:
    assert split_frame(frame_name("a/b.MP4", 12.3456)) == ("a/b.MP4", 12.35)
    for name in ("a.jpg#t=1.00", "a.mp4", "a.mp4#t=", "a.mp4#t=-1", "#t=1", "a.mp4#t=1.jpg", ".mp4#t=1"):
        assert split_frame(name) is None, name
    assert split_frame(frame_name("a.mp4", 4e9)) == ("a.mp4", 4e9)
    assert file_of("x/a.mp4#t=1.5") == "x/a.mp4"
    assert file_of("x/a#t=1.jpg") == "x/a#t=1.jpg"
    assert is_picture("a.mp4#t=1.00")
    assert not is_picture("a.mp4")
    odd = tmp_path / "odd.mp4#t=1.00"  # a file that is called so is that file
    odd.write_bytes(b"its own bytes")
    assert read_file(odd) == b"its own bytes"


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "can_read_video", lambda: False)
    with pytest.raises(ImageError, match="PyAV") as caught:
        read_file(tmp_path / "clip.mp4#t=1")
    assert caught.value.hint == "pip install 'clipkit[video]'"


def test_a_video_itself_is_no_picture(tmp_path: Path) -> None:
    file = film(tmp_path / "clip.mp4", [RED])
    with pytest.raises(ImageError, match=r"clip.mp4#t=0.00"):
        read_file(file)
    assert os.path.exists(file)
