"""A decoder that crashes, hangs or eats the memory costs one picture, through whatever door it came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from clipkit_apps.server.thumbnails import Thumbnails
from PIL import Image

from clipkit.errors import ClipkitError, ImageError
from clipkit.images import decode as unguarded
from clipkit.images import guarded_decoder
from clipkit.images.augment import read_canvas
from clipkit.images.guarded_decoder import DecoderPool
from clipkit.images.recipe import PixelRecipe
from clipkit.images.thumbnails import file_metadata, thumbnail
from clipkit.index.check import check
from clipkit.index.image_index import ImageIndex
from clipkit.index.import_export import export, import_
from clipkit.models.load import load_encoder
from clipkit.models.vit import read_whole
from clipkit.output.contact_sheet import write_sheet
from clipkit.output.terminal_preview import render
from clipkit.search.hits import Hit, Hits
from tests.support.colours import ColourEncoder, paint

HALF = (0.5, 0.5, 0.5)
RECIPE = PixelRecipe((32, 32), HALF, HALF)
REASONS = {
    "abort": "crashed with SIGABRT",
    "segfault": "crashed with SIGSEGV",
    "memory": "was killed, as by a lack of memory",
    "hang": "took longer than 2 s",
}


Use = Callable[..., DecoderPool]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """From now on, decoders are of that program; they are closed at the end."""
    with ExitStack() as stack:

        def begin(*program: str, hang_seconds: float = 60) -> DecoderPool:
            pool = DecoderPool((sys.executable, *program), hang_seconds=hang_seconds)
            stack.callback(pool.close)
            monkeypatch.setattr(guarded_decoder, "_POOL", pool)
            return pool

        yield begin


@pytest.fixture
def use_deadly(use: Use) -> Use:
    """From now on, decoders die of files named boom."""
    return lambda how: use("-m", "tests.support.boom_decoder", how, hang_seconds=2 if how == "hang" else 60)


@pytest.fixture
def deadly(use_deadly: Use) -> DecoderPool:
    return use_deadly("abort")


@pytest.fixture
def boom(tmp_path: Path) -> Path:
    return paint(tmp_path / "bad" / "boom.png", (255, 0, 0))


@pytest.mark.parametrize("how", REASONS)
def test_what_kills_its_decoder_is_an_error_that_names_it_and_the_next_is_decoded(
    how: str, boom: Path, photos: Path, use_deadly: Use
) -> None:
    use_deadly(how)
    for _ in range(2):
        with pytest.raises(ImageError, match=rf"boom\.png: its decoder {REASONS[how]}"):
            thumbnail(boom, 32)
        assert thumbnail(photos / "red.png", 32).canvas[0, 0].tolist() == [255, 0, 0]


def sheet(file: Path) -> None:
    hits = Hits([Hit(0.5, file.name, str(file), 1)])
    page = file.parent.parent / "sheet.html"
    write_sheet(hits, page, title="x")
    if "its decoder" in page.read_text():
        raise ImageError(page.read_text())


def preview(file: Path) -> None:
    if (text := render(str(file), "blocks", columns=9, rows=9)).startswith("no preview"):
        raise ImageError(text)


DOORS: dict[str, Callable[[Path], object]] = {
    "thumbnail": lambda file: thumbnail(file, 64),
    "canvas for training": lambda file: read_canvas(file, RECIPE),
    "preview in the terminal": preview,
    "contact sheet": sheet,
    "thumbnail of the page": lambda file: Thumbnails(file.parent / "cache").get(file, "content", "thumb"),
    "picture of a ViT": read_whole,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.usefixtures("deadly")
def test_no_door_lets_a_crash_in(door: str, boom: Path, photos: Path) -> None:
    with pytest.raises(ImageError, match="its decoder crashed with SIGABRT"):
        DOORS[door](boom)
    DOORS[door](photos / "red.png")


@pytest.mark.usefixtures("deadly")
def test_a_camera_that_cannot_be_read_is_none(boom: Path) -> None:
    assert file_metadata(boom).camera is None


def test_python_search_check_and_import_go_on(
    models: Callable[[str], Path], photos: Path, boom: Path, tmp_path: Path, use_deadly: Use
) -> None:
    encoder = load_encoder(str(models("clip")), device="cpu", precision="float32")
    paint(photos / "boom.png", (9, 99, 9))
    index = ImageIndex.create(photos, encoder)
    assert index.update().encoded == 9
    export(index, tmp_path / "vectors")
    use_deadly("segfault")
    with pytest.raises(ImageError, match="its decoder crashed with SIGSEGV"):
        encoder.encode_images([photos / "red.png", boom])
    with pytest.raises(ImageError, match="its decoder crashed with SIGSEGV"):
        index.search(str(boom))
    with pytest.raises(ImageError, match="its decoder crashed with SIGSEGV"):
        index.search_image(boom)
    assert index.search_image(photos / "red.png", k=1)[0].path == "red.png"
    report = check(index, sample=None)
    assert (report.encoded_again, report.damage) == (8, ())
    imported = import_(tmp_path / "vectors", photos, encoder, at=tmp_path / "other")
    assert (imported.checked, imported.imported) == (8, 9)


@pytest.mark.parametrize("how", ["segfault", "abort"])
def test_an_update_from_python_goes_on_after_a_crash(photos: Path, use_deadly: Use, how: str) -> None:
    paint(photos / "boom.png", (9, 99, 9))
    use_deadly(how)
    report = ImageIndex.create(photos, ColourEncoder()).update()
    assert (report.encoded, [failure.path for failure in report.failed]) == (8, ["boom.png"])
    assert report.failed[0].reason == f"its decoder {REASONS[how]}"


def test_a_watched_run_decodes_in_its_own_process(photos: Path, monkeypatch: pytest.MonkeyPatch, use: Use) -> None:
    pool = use("-c", "raise SystemExit('no decoder is wanted')")
    monkeypatch.setenv("CLIPKIT_WATCHED", "1")
    assert ImageIndex.create(photos, ColourEncoder()).update().encoded == 8
    assert not pool._free


def test_guarded_pixels_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix, size in (("png", (90, 70)), ("jpg", (900, 700)), ("webp", (64, 200)), ("tif", (5, 5))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(file := tmp_path / f"x.{suffix}")
        data = file.read_bytes()
        for recipe in (RECIPE, PixelRecipe((32, 32), HALF, HALF, exact=True)):
            one, other = (decode(data, recipe, name="x") for decode in (unguarded.decode, guarded_decoder.decode))
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert (one.width, one.height, one.share) == (other.width, other.height, other.share)
        np.testing.assert_array_equal(
            unguarded.decode_whole(data, name="x"), guarded_decoder.decode_whole(data, name="x")
        )


def test_guarded_errors_are_the_same() -> None:
    with pytest.raises(ImageError) as here:
        unguarded.decode(b"no", RECIPE, name="n\udcff")
    with pytest.raises(ImageError) as there:
        guarded_decoder.decode(b"no", RECIPE, name="n\udcff")
    assert (here.value.message, here.value.hint) == (there.value.message, there.value.hint)


def test_threads_share_a_few_decoders(deadly: DecoderPool, photos: Path, boom: Path) -> None:
    files = [*photos.iterdir(), boom] * 4

    def mean(file: Path) -> object:
        try:
            return thumbnail(file, 16).canvas.mean()
        except ImageError:
            return None

    expected = [
        None if file == boom else float(np.mean(unguarded.decode_whole(file.read_bytes(), name=""))) for file in files
    ]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(mean, files)) == expected
    assert len(deadly._free) <= 8


def test_what_takes_much_memory_is_decoded_one_at_a_time(use: Use, tmp_path: Path) -> None:
    pool = use(*guarded_decoder.PROGRAM[1:])
    big = paint(tmp_path / "big.png", (1, 2, 3), (4000, 4000))
    with pool._heavy:
        thread = threading.Thread(target=thumbnail, args=(big, 32))
        thread.start()
        assert thumbnail(paint(tmp_path / "small.png", (1, 2, 3)), 32).width == 16
        time.sleep(0.5)
        assert thread.is_alive()
    thread.join()


def test_memory_has_a_limit_and_the_decoder_outlives_it(use: Use, tmp_path: Path) -> None:
    limit = 450 * 2**20  # the picture takes 390, and libraries 200
    pool = use("-c", f"from clipkit.images import decoder_process as d; d.MAX_MEMORY = {limit}; d.main()")
    big = paint(tmp_path / "big.png", (1, 2, 3), (9900, 9900))
    with pytest.raises(ImageError, match="more memory than there is"):
        thumbnail(big, 32)
    (decoder,) = pool._free
    assert thumbnail(paint(tmp_path / "small.png", (1, 2, 3)), 32).width == 16
    assert pool._free == [decoder]


def test_a_decoder_that_does_not_start_is_said_once_and_no_picture_is_blamed(
    use: Use, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    use("-c", "raise SystemExit(3)")
    with pytest.raises(ClipkitError, match="does not start") as refused:
        thumbnail(photos / "red.png", 32)
    assert not isinstance(refused.value, ImageError)
    monkeypatch.setenv("CLIPKIT_UNGUARDED", "1")
    assert thumbnail(photos / "red.png", 32).width == 16


def test_decoders_end_with_their_process(photos: Path) -> None:
    script = (
        "import os, sys; from clipkit.images import guarded_decoder as g;"
        "from clipkit.images.thumbnails import thumbnail;"
        "thumbnail(sys.argv[1], 9); print(g._POOL._free[0]._process.pid, flush=True);"
        "os.kill(os.getpid(), 9) if sys.argv[2] == 'kill' else None"
    )
    for how in ("kill", "end"):
        command = [sys.executable, "-W", "error", "-c", script, str(photos / "red.png"), how]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stderr == ""
        child = int(done.stdout)
        end = time.monotonic() + 10
        while _is_alive(child) and time.monotonic() < end:
            time.sleep(0.05)
        assert not _is_alive(child)


def test_a_child_of_fork_has_decoders_of_its_own(photos: Path) -> None:
    thumbnail(photos / "red.png", 9)
    reading, writing = os.pipe()
    if not (child := os.fork()):
        ids = [decoder._process.pid for decoder in guarded_decoder._POOL._free]
        pixel = thumbnail(photos / "blue.png", 9).canvas[0, 0].tolist()
        os.write(writing, json.dumps([ids, pixel]).encode())
        guarded_decoder._POOL.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert json.loads(os.read(reading, 1000)) == [[], [0, 0, 255]]
    assert thumbnail(photos / "green.png", 9).width == 16


def test_a_decoder_imports_no_model_library() -> None:
    code = "import sys, clipkit.images.decoder_process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "faiss", "transformers", "sklearn", "pandas"} & set(loaded)


def _is_alive(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
