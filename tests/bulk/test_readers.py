"""Sources: the same pictures, by whatever they lie in, in one order, each name once."""

from __future__ import annotations

import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipkit.bulk import embed
from clipkit.bulk.readers import Item, Source, list_source, read_item
from clipkit.errors import ClipkitError, ImageError
from tests.support.bulk_run import expected, failures_of, rows_of
from tests.support.colours import COLOURS, ColourEncoder, paint
from tests.support.flaky_bucket import FlakyBucket
from tests.support.shards import write_shards


def contents(source: Source) -> dict[str, bytes]:
    return {item.path: read_item(source.storage, item) for item in source.items}


def of_folder(photos: Path) -> dict[str, bytes]:
    return {file.relative_to(photos).as_posix(): file.read_bytes() for file in sorted(photos.rglob("*.png"))}


def make_tar(file: Path, pictures: dict[str, bytes]) -> Path:
    """As webdataset has it: a text beside each picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in pictures.items():
            for member, content in ((name, data), (f"{Path(name).stem}.txt", b"a caption")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return file


def test_a_folder_has_the_pictures_of_an_index_and_nothing_that_is_hidden(photos: Path) -> None:
    paint(photos / "trip" / "sea.png", COLOURS["blue"])
    paint(photos / ".hidden" / "a.png", COLOURS["blue"])
    (photos / "film.mkv").write_bytes(b"a film")
    source = list_source(str(photos))
    assert contents(source) == {name: data for name, data in of_folder(photos).items() if ".hidden" not in name}
    assert [item.path for item in source.items] == sorted(item.path for item in source.items)
    assert source.left_out == 1


def test_tars_are_read_by_place_one_several_or_those_of_a_folder(photos: Path, tmp_path: Path) -> None:
    pictures = of_folder(photos)
    first, second = dict(list(pictures.items())[:3]), dict(list(pictures.items())[3:])
    make_tar(tmp_path / "set" / "b" / "00001.tar", second)
    make_tar(tmp_path / "set" / "b" / "00000.tar", first)
    inside = {f"00000.tar/{n}": d for n, d in first.items()} | {f"00001.tar/{n}": d for n, d in second.items()}
    assert contents(list_source(str(tmp_path / "set" / "b" / "*.tar"))) == inside
    assert contents(list_source(str(tmp_path / "set"))) == {f"b/{name}": data for name, data in inside.items()}
    assert contents(list_source(str(tmp_path / "set" / "b" / "00000.tar"))) == {
        f"00000.tar/{name}": data for name, data in first.items()
    }


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        for data in (b"first", b"second"):
            info = tarfile.TarInfo("./a.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert contents(list_source(str(file))) == {"a.tar/a.png": b"second"}


@pytest.mark.parametrize("kind", ["cut off", "no tar", "compressed"])
def test_a_tar_that_cannot_be_read_is_a_row_and_the_others_are_read(
    cluster: None, kind: str, photos: Path, tmp_path: Path
) -> None:
    pictures = of_folder(photos)
    make_tar(tmp_path / "set" / "a.tar", pictures)
    bad = make_tar(tmp_path / "set" / "b.tar", pictures)
    if kind == "cut off":
        bad.write_bytes(bad.read_bytes()[:2700])  # within the third member's header
    else:
        bad.write_bytes(b"\x1f\x8b\x08 no tar" * 100 if kind == "compressed" else b"no tar at all" * 100)
    out = tmp_path / "shards"
    report = embed(tmp_path / "set", out, model=ColourEncoder(), shard=5)
    [(path, reason)] = failures_of(out).items()
    assert path == "b.tar"
    assert reason.startswith("the tar cannot be read to its end: ")
    found = rows_of(out)
    assert {name for name in found if name.startswith("a.tar/")} == {f"a.tar/{name}" for name in pictures}
    assert (report.failed, report.embedded) == (1, len(found))


def test_a_table_has_pictures_in_a_column_of_bytes_or_says_where_they_are(photos: Path, tmp_path: Path) -> None:
    pictures = of_folder(photos)
    values, names = list(pictures.values()), list(pictures)
    tables = tmp_path / "tables"
    tables.mkdir()
    nested = [{"bytes": data, "path": name} for name, data in pictures.items()]
    pq.write_table(pa.table({"image": nested, "label": names}), tables / "a.parquet", row_group_size=3)
    pq.write_table(pa.table({"jpg": values, "__key__": names}), tables / "b.parquet", row_group_size=3)
    numbered = {f"a.parquet/{i:09d}": data for i, data in enumerate(values)}
    named = {f"b.parquet/{name}": data for name, data in pictures.items()}
    assert contents(list_source(str(tables))) == numbered | named
    beside = photos / "list.parquet"
    pq.write_table(pa.table({"path": [*names, names[0]]}), beside)
    assert contents(list_source(str(beside))) == pictures
    pq.write_table(pa.table({"score": [1.0]}), tables / "c.parquet")
    with pytest.raises(ClipkitError, match="has no column of pictures among score"):
        list_source(str(tables))


def test_shards_that_lie_in_a_source_of_tables_are_none_of_its_tables(photos: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": list(of_folder(photos).values())}), tmp_path / "part-of-mine.parquet")
    before = list_source(str(tmp_path)).items
    for out in (tmp_path, tmp_path / "out"):
        write_shards(out, photos, ColourEncoder())
    assert len(before) == 8
    assert list_source(str(tmp_path)).items == before


def test_a_bucket_has_pictures_tars_and_tables_too(bucket: FlakyBucket, photos: Path, tmp_path: Path) -> None:
    import s3fs

    pictures = of_folder(photos)
    make_tar(photos / "more" / "00000.tar", pictures)
    pq.write_table(pa.table({"image": list(pictures.values())}), tmp_path / "t.parquet")
    s3 = s3fs.S3FileSystem(skip_instance_cache=True)
    s3.mkdir("readers")
    s3.put(f"{photos}/", "readers/photos/", recursive=True)
    s3.put(str(tmp_path / "t.parquet"), "readers/tables/t.parquet")
    inside = {f"00000.tar/{name}": data for name, data in pictures.items()}
    assert contents(list_source("s3://readers/photos")) == pictures | {f"more/{n}": d for n, d in inside.items()}
    assert contents(list_source("s3://readers/photos/more/*.tar")) == inside
    assert contents(list_source("s3://readers/tables")) == {
        f"t.parquet/{i:09d}": data for i, data in enumerate(pictures.values())
    }


def test_a_bucket_that_is_down_is_no_error_of_its_pictures(
    bucket: FlakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be taken for read, and never be read again."""
    import s3fs

    monkeypatch.setattr("clipkit.bulk.storage.PATIENCE", ())
    s3 = s3fs.S3FileSystem(skip_instance_cache=True)
    s3.mkdir("down")
    s3.pipe_file("down/a.png", b"a picture")
    source = list_source("s3://down")
    bucket.is_down = True
    try:
        with pytest.raises(OSError, match=r"Unavailable|SlowDown|Reduce") as error:
            read_item(source.storage, source.items[0])
        assert not isinstance(error.value, FileNotFoundError)
    finally:
        bucket.is_down = False
    with pytest.raises(ImageError):
        read_item(source.storage, Item("gone.png"))


def test_a_table_of_urls_is_fetched_and_a_server_that_is_gone_costs_its_pictures(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(photos)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there, gone = f"http://127.0.0.1:{server.server_port}/red.png", f"http://127.0.0.1:{server.server_port}/no.png"
    pq.write_table(pa.table({"url": [there, gone]}), tmp_path / "list.parquet")
    source = list_source(str(tmp_path / "list.parquet"))
    by_name = {item.path: item for item in source.items}
    try:
        assert read_item(source.storage, by_name[there]) == (photos / "red.png").read_bytes()
        with pytest.raises(ImageError, match="not found"):
            read_item(source.storage, by_name[gone])
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ImageError, match=r"[Cc]onnect"):
        read_item(source.storage, by_name[there])


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://example.org/photos", "cannot be listed"),
        ("memory://photos", "memory of one process"),
        ("photos/a.tar.gz", "is compressed"),
        ("nowhere", "cannot read nowhere|cannot read .*nowhere"),
        ("nothing-*.tar", "matches no tar"),
        ("gopher://photos", "cannot open gopher://photos"),
    ],
)
def test_what_cannot_be_a_source_is_said(url: str, sentence: str) -> None:
    with pytest.raises(ClipkitError, match=sentence):
        list_source(url)


def test_embeddings_of_pictures_in_tars_are_those_of_their_files(cluster: None, photos: Path, tmp_path: Path) -> None:
    make_tar(tmp_path / "set" / "00000.tar", of_folder(photos))
    embed(tmp_path / "set", tmp_path / "shards", model=ColourEncoder())
    found = rows_of(tmp_path / "shards")
    names = sorted(of_folder(photos))
    assert sorted(found) == [f"00000.tar/{name}" for name in names]
    right = expected(photos, names)
    assert all(abs(found[f"00000.tar/{name}"] - row).max() < 1e-3 for name, row in zip(names, right, strict=True))
