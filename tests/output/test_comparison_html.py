"""The report: figures that show something, a page that asks nobody, and names that stay text."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.core.progress import Failure
from clipkit.errors import ClipkitError
from clipkit.evaluate.comparison import compare
from clipkit.evaluate.results import Comparison, load_comparison
from clipkit.output.comparison_html import page, write_report
from clipkit.output.figures import DARK, LIGHT, confusion_figure, cost_figure, curves_figure
from tests.cli.test_classify_and_evaluate import ColourPhrases
from tests.evaluate.test_comparison import make
from tests.support.colours import paint

HOSTILE = (
    "red<script>alert(1)</script>",
    'blue"><img src=x onerror=alert(1)>',
    "green\u202egpj.exe",
    "white $\\frac{1}{0}$ & co",
    "yellow \u732b \U0001f408",
)
METHODS = ("zeroshot", "probe", "knn", "tip-adapter")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPKIT_CACHE", str(folder / "cache"))
        return compare(make(folder / "set"), ColourPhrases(), methods=METHODS, shots=(1, 4), seeds=2)


@pytest.fixture(scope="module")
def shown(found: Comparison) -> str:
    return page(found)


class Reader(HTMLParser):
    """What a browser would find: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def share_near(picture: np.ndarray, colour: str) -> float:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(picture - wanted).max(axis=2) < 12).mean())


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_curves_and_costs_show_every_method_in_its_colour(found: Comparison, theme: object, narrow: bool) -> None:
    from clipkit.output.figures import Theme, _colour

    assert isinstance(theme, Theme)
    for draw in (curves_figure, cost_figure):
        picture = pixels(draw(found, narrow=narrow, theme=theme))
        assert picture.shape[1] == pytest.approx(701 if narrow else 1805, abs=2)
        assert share_near(picture, theme.paper) > 0.5
        for method in ("probe", "knn", "tip-adapter"):
            assert share_near(picture, _colour(method, theme)) > 2e-4, method
        assert share_near(picture, theme.ink) > 1e-3


def test_a_matrix_shows_where_answers_fell() -> None:
    right = pixels(confusion_figure(np.eye(6, dtype=int) * 5, list("abcdef"), percent=True))
    wrong = pixels(confusion_figure(np.full((6, 6), 5), list("abcdef"), percent=True))
    assert share_near(right, LIGHT.full) > 0.04
    assert share_near(wrong, LIGHT.full) < share_near(right, LIGHT.full) / 2  # the bar beside it has it too
    grouped = pixels(confusion_figure(np.eye(6, dtype=int) * 5, list("abcdef"), groups=["x", "x", "y", "y", "y", "y"]))
    assert share_near(grouped, LIGHT.faint) > share_near(right, LIGHT.faint)


def test_the_page_stands_alone(shown: str) -> None:
    read = Reader(shown)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "b", "div", "span", "table"}
    allowed |= {"caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "picture", "source", "img"}
    assert {tag for tag, _ in read.tags} <= allowed | {"ul", "li"}
    for tag, attributes in read.tags:
        for name in ("src", "srcset", "href"):
            value = attributes.get(name)
            assert value is None or (tag in ("img", "source") and value.startswith("data:image/")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
    policy = next(attributes for tag, attributes in read.tags if "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "url(" not in shown
    assert "@import" not in shown


def test_the_page_says_what_the_rows_say(found: Comparison, shown: str) -> None:
    text = " ".join(Reader(shown).words)
    for row in found.rows:
        assert f"{100 * row.acc1:.1f}" in text
        assert f"{100 * row.acc1_ci95[0]:.1f} to {100 * row.acc1_ci95[1]:.1f}" in text
    for name in (*found.classes[:1], found.split, found.date[:10], "95 % percentile bootstrap"):
        assert name in text
    assert found.pairs[0].actual in text
    assert "random seeds together" not in text  # the row that is shown has one


def test_confused_pairs_say_how_many_seeds_they_count(found: Comparison) -> None:
    """4 of 12, where there are six pictures: two seeds are counted together."""
    drawn = replace(found, rows=tuple(replace(row, seeds=2) for row in found.rows))
    assert "the pairs most often confused, over 2 random seeds together" in page(drawn, thumbnails=False)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, which take most of their time."""
    for name in ("confusion_figure", "cost_figure", "curves_figure"):
        monkeypatch.setattr(f"clipkit.output.comparison_html.{name}", lambda *given, **options: repr(options).encode())


@pytest.mark.usefixtures("undrawn")
def test_thumbnails_are_there_unless_nobody_wants_them(found: Comparison, shown: str) -> None:
    def small(text: str) -> list[str | None]:
        return [a["src"] for tag, a in Reader(text).tags if tag == "img" and "src" in a]

    sources = small(shown)
    assert len(sources) >= sum(len(pair.files) for pair in found.pairs[:8])
    assert all(source is not None and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert small(page(found, thumbnails=False)) == []
    assert small(page(replace(found, path="nowhere"))) == []  # pictures that are gone are no error


@pytest.mark.parametrize("name", ["$\\frac{$", "$" + "\\sqrt{" * 30 + "x" + "}" * 30 + "$", "a\x00$b", "$$"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_name_of_a_method_is_no_formula(found: Comparison, name: str) -> None:
    """A results.json may come from anybody."""
    rows = tuple(replace(row, method=name) if row.method == "knn" else row for row in found.rows)
    for draw in (cost_figure, curves_figure):
        assert draw(replace(found, rows=rows)).startswith(b"\x89PNG")


@pytest.fixture
def hostile(tmp_path: Path) -> Comparison:
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for number, name in enumerate(HOSTILE):
            for i in range(count):
                colour = (60 * number, int(rng.integers(256)), int(rng.integers(256)))
                folder = tmp_path / "<b>set</b>" / part / name.replace("/", "\u2215")
                paint(folder / f'{i}"><svg onload=alert(1)>\u202e.png', colour)
    found = compare(tmp_path / "<b>set</b>", ColourPhrases(), methods=["zeroshot", "probe"], shots=(1,), seeds=1)
    write_report(found, tmp_path / "out")
    return found


def test_names_stay_text(hostile: Comparison, tmp_path: Path) -> None:
    text = (tmp_path / "out" / "index.html").read_text()
    read = Reader(text)
    assert not {"script", "svg"} & {tag for tag, _ in read.tags}
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert "\u202e" not in text
    assert "\\u202e" in " ".join(read.words)
    words = " ".join(read.words)
    assert "red<script>alert(1)<" in words
    assert load_comparison(tmp_path / "out").rows == hostile.rows
    for file in (tmp_path / "out").glob("*.png"):
        assert pixels(file.read_bytes()).std() > 5


@pytest.mark.usefixtures("undrawn")
def test_everything_that_a_file_says_is_text(found: Comparison) -> None:
    bad = "<script>alert(1)</script>\u202e"
    texts = {"dataset": bad, "split": bad, "date": bad, "notes": (bad,), "left_out": (bad,)}
    maps = {name: {bad: 1} for name in ("counts", "machine", "versions", "feature_seconds")}
    changed = {
        **{"model": {"name": bad, "pixels": bad}, "settings": {"intervals": bad}, "failed": (Failure(bad, bad),)},
        **{"mistakes": tuple(replace(one, actual=bad, files=(bad,)) for one in found.mistakes)},
    }
    text = page(replace(found, **texts, **maps, **changed))  # type: ignore[arg-type]
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;\\u202e") > 12
    assert "script" not in {tag for tag, _ in Reader(text).tags}
    assert "\u202e" not in text


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_result_can_be_shown_again(found: Comparison, tmp_path: Path) -> None:
    write_report(found, tmp_path / "report")
    again = load_comparison(tmp_path / "report")
    assert page(again) == page(found)


def test_one_method_without_labels_is_a_page_too(tmp_path: Path) -> None:
    make(tmp_path / "set")
    alone = compare(tmp_path / "set", ColourPhrases(), methods=["zeroshot"])
    write_report(alone, tmp_path / "out")
    assert alone.best == alone.zero_shot
    text = (tmp_path / "out" / "index.html").read_text()
    assert "What labels buy" not in text.partition("<h2>")[2]
    assert "points" not in re.sub("<style>.*?</style>", "", text, flags=re.S)


def test_a_report_that_cannot_be_written_is_a_sentence(found: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ClipkitError, match="cannot be written"):
        write_report(found, tmp_path / "file" / "report")
    with pytest.raises(ClipkitError, match="holds other things"):
        write_report(found, tmp_path)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_is_not_wider_than_its_window(shown: str, tmp_path: Path, width: int) -> None:
    measured = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    open_page = shown.replace("default-src 'none'", "default-src 'unsafe-inline'").replace("</body>", measured)
    (tmp_path / "page.html").write_text(open_page)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    wide, window = (int(part) for part in re.findall(r"<title>(\d+) of (\d+)</title>", done.stdout)[0])
    assert wide <= window
