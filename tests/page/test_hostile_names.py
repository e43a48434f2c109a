"""Names and words that would be programs, in every output of the page, as a real browser takes them: all stay text."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clipkit_apps.library.tab import _progress
from clipkit_apps.server.runs import Look
from PIL import Image

from clipkit.core.progress import Failure
from clipkit.core.text import FORMULA_STARTS, printable
from clipkit.errors import QueryError
from clipkit.evaluate.comparison import compare
from clipkit.evaluate.results import Comparison, Mistake
from clipkit.explore.question import clean
from clipkit.index.image_index import ImageIndex
from tests.support.colours import ColourEncoder, paint
from tests.support.page_robot import PHONE, Robot, robot, serving
from tests.support.paths import REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
OUTSIDE = "//evil.example/"
# Files cannot have a slash in their names; "<" is a folder, so that the last ones have a path with "</".
FILES = (
    "<script>canary(1)<script>",
    "<img src=x onerror=canary(2)>",
    "<svg onload=canary(3)>",
    '"onerror="canary(4)',
    '" onerror=canary(5) x="',
    "' onmouseover='canary(6)",
    '"><svg onload=canary(7)>',
    "'><img src=x onerror=canary(8)>",
    "javascript:canary(9)",
    "data:text\u2215html,<script>canary(10)<script>",
    "<iframe srcdoc='<script>canary(11)<script>'>",
    "<a href=javascript:canary(12)>here",
    "<style>@import '\u2215\u2215evil.example\u2215x'",
    "<style>*{width:9000px}",
    "<base href=\u2215\u2215evil.example>",
    "<meta http-equiv=refresh content=0;url=javascript:canary(16)>",
    "<object data=javascript:canary(17)>",
    "<embed src=javascript:canary(18)>",
    "<details open ontoggle=canary(19)>",
    "<video><source onerror=canary(20)>",
    "<form><button formaction=javascript:canary(21)>",
    "<math><mtext><img src=x onerror=canary(22)>",
    "<template><img src=x onerror=canary(23)>",
    "<!--><img src=x onerror=canary(24)>-->",
    "]]><img src=x onerror=canary(25)>",
    "&lt;img src=x onerror=canary(26)&gt;",
    "&#60;img src=x onerror=canary(27)&#62;",
    "&NewLine;&Tab;&colon;",
    "{{canary(29)}}",
    "${canary(30)}",
    "{%canary(31)%}",
    "{html canary(32)}",
    "`canary(33)`",
    "[x](javascript:canary(34))",
    "![x](\u2215\u2215evil.example\u2215x.png)",
    "=cmd|' C'!A0",
    "@SUM(1+1)*cmd",
    "+1+cmd",
    "-1+cmd",
    "\u202egnp.exe\u2066\u2069",
    "two\nlines\r\n<img src=x onerror=canary(41)>",
    "\x1b[31mred\x07\x08\u0000".replace("\0", "\x7f"),
    "w" * 251,
    "\u732b" * 83,
    "a" + "\u0301" * 120,
    os.fsdecode(b"\xff\xfe<img src=x onerror=canary(46)>"),
    os.fsdecode(b"\x80" * 100),
    "<" + os.sep + "script><img src=x onerror=canary(48)>",
    "<" + os.sep + "title><script>canary(49)<script>",
)
PROMPTS = (
    "<script>canary(51)</script>",
    "</script><img src=x onerror=canary(52)>",
    "</textarea></title></style><svg/onload=canary(53)>",
    '" autofocus onfocus=canary(54) x="',
    "javascript:canary(55)//",
    "{{constructor.constructor('canary(56)')()}} ${canary(56)}",
    f"<img src={OUTSIDE}x.png><link rel=stylesheet href={OUTSIDE}x.css>",
    "<svg><animate onbegin=canary(58) attributeName=x dur=1s>",
    "a\0b<img src=x onerror=canary(59)>\0",
    "\u202e\u2066evil\u2069\u200f<b>\ufeff\U000e0041",
    "=HYPERLINK(canary(61))",
    "w" * 1000,
    "w" * 1001,
    "\u732b" * 900,
    "two\nlines\r\n\u2028and\u2029more <img src=x onerror=canary(65)>",
)
FOLDER = "\"><img src=x onerror=canary('folder')>"
ROOT = "<img src=x onerror=canary('root')>"
CONTAINERS = (
    ".ck-note, .ck-about, .ck-folder, .ck-chips, .ck-recent, .ck-lesson, #ck-count, #ck-learned, #ck-comparison"
)
INSIDE = f"""() => {{
  const wide = (e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0;
  return [document.documentElement, document.body, ...document.querySelectorAll({CONTAINERS!r})].filter(wide)
    .map(e => `${{e.tagName}} ${{e.id}} ${{e.className}}: ${{e.scrollWidth}} > ${{e.clientWidth}}`);
}}"""
LIVE = """() => [...document.querySelectorAll('*')].filter(e =>
  [...e.attributes].some(a => /^on/i.test(a.name) || /javascript:|evil[.]example/i.test(a.value)
    && /^(src|href|action|formaction|data|srcdoc|content|style)$/i.test(a.name))
  || e.matches('iframe, object, embed, body base, animate, meta[http-equiv=refresh]')
  || e.matches('#ck-search script, #ck-search style'))
  .map(e => e.outerHTML.slice(0, 200))"""


def test_they_are_sixty_and_each_is_another() -> None:
    assert len(set(FILES)) + len(set(PROMPTS)) >= 60
    assert len(set(FILES)) == len(FILES)
    assert max(len(os.fsencode(f"{name}.png").rpartition(b"/")[2]) for name in FILES) == 255


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page-cache")


@pytest.fixture(scope="module")
def root(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each name once as a picture and once as one that cannot be read; the first two pictures are equal."""
    root = tmp_path_factory.mktemp("photos") / ROOT
    for number, name in enumerate(FILES):
        for folder in (root, root / FOLDER):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        colour = (40, 40, 40) if number < 2 else (number * 5, 40, 90)
        Image.new("RGB", (60, 60), colour).save(root / f"{name}.png")
        (root / FOLDER / f"{name}.png").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPKIT_CACHE", str(cache))
        report = ImageIndex.create(root, ColourEncoder()).update()
    assert (report.encoded + report.reused, len(report.failed)) == (len(FILES), len(FILES))
    return root


@pytest.fixture(scope="module")
def address(browser: Browser, cache: Path, root: Path) -> Iterator[str]:
    with serving(cache, str(root), module="tests.support.colour_page", cwd=REPOSITORY) as served:
        yield served


class Watched:
    """A browser window in which nothing may run."""

    def __init__(self, page: Robot) -> None:
        self.page = page
        self.ran: list[object] = []
        page.window.expose_function("canary", lambda what: self.ran.append(what))

    def is_quiet(self) -> bool:
        """Whether nothing ran, nothing outside was asked, no name became a tag, and all fits."""
        window = self.page.window
        assert self.ran == []
        assert self.page.noises == []
        assert self.page.outside() == set()
        assert window.evaluate(LIVE) == []
        assert window.evaluate(INSIDE) == []
        return True


@pytest.fixture(scope="module")
def phone(browser: Browser, address: str) -> Iterator[Watched]:
    with robot(browser, address, viewport=PHONE, has_touch=True) as found:
        watched = Watched(found)
        found.open()
        yield watched


@pytest.fixture
def desk(browser: Browser, address: str) -> Iterator[Watched]:
    with robot(browser, address, accept_downloads=True) as found:
        watched = Watched(found)
        found.open()
        yield watched
        assert watched.is_quiet()


def shown(name: str) -> str:
    return printable(f"{name}.png".rpartition("/")[2])


def answered(watched: Watched, selector: str) -> Any:
    found = watched.page.window.locator(selector).first
    found.wait_for()
    return found


def test_a_program_would_be_seen(browser: Browser, address: str) -> None:
    """The proof that all the other tests can fail."""
    bird = "<img src=x onerror=canary(0)><div style='width:900px'>.</div>"
    with robot(browser, address, viewport=PHONE) as page:
        watched = Watched(page)
        page.open()
        assert watched.is_quiet()
        page.window.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", bird)
        for _ in range(100):  # the picture has to fail to load first, which takes long beside other work
            if watched.ran:
                break
            page.window.wait_for_timeout(100)
        assert watched.ran == [0]
        assert len(page.window.evaluate(LIVE)) == 1
        assert page.window.evaluate(INSIDE) != []


@pytest.mark.parametrize("name", FILES, ids=lambda name: printable(name)[:40])
def test_a_file_name_stays_a_name_on_the_wall_and_in_the_large_view(phone: Watched, root: Path, name: str) -> None:
    window = phone.page.window
    index = ImageIndex.open(root)
    number = next(id_ for id_, path in index.store.paths()[1].items() if path == f"{name}.png")
    key = window.evaluate("fetch('clipkit/search/libraries').then(answer => answer.json())")["libraries"][0]["key"]
    window.evaluate("([key, id]) => window.clipkit.choose(key, [id])", [key, number])
    card = window.locator(f'.ck-wall .ck-card[data-id="{number}"]')
    card.wait_for()
    window.keyboard.press("Escape")  # it is chosen
    assert card.locator(".ck-open").get_attribute("aria-label") == shown(name)
    assert card.locator(".ck-name").text_content() == shown(name)
    card.locator(".ck-open").click()
    facts = window.locator(".ck-facts dd").first
    facts.wait_for()
    assert facts.text_content() == printable(f"{name}.png")
    assert window.locator(".ck-title").text_content() == shown(name)
    window.locator(".ck-large .ck-copy").click()
    window.keyboard.press("Escape")
    window.locator(".ck-large").wait_for(state="detached")
    assert phone.is_quiet()


@pytest.mark.parametrize("words", PROMPTS, ids=lambda words: printable(words)[:40])
def test_words_stay_words_above_the_grid_in_the_history_and_in_columns(phone: Watched, words: str) -> None:
    window = phone.page.window
    phone.page.tab("Search")
    box = window.locator("#ck-box")
    box.fill(words)
    try:
        asked = clean(words.replace("\r\n", "\n"))
    except QueryError:
        box.press("Enter")
        assert "1,001 characters" in answered(phone, "#ck-count .ck-error").inner_text()
        assert phone.is_quiet()
        return
    with phone.page.new_answer():
        box.press("Enter")
    said = window.locator("#ck-count").inner_text()
    assert printable(asked)[:60] in " ".join(said.split())
    assert asked in window.locator("#ck-recent .ck-past").all_text_contents()
    assert phone.is_quiet()
    phone.page.tab("Classify")
    window.locator("#ck-classes textarea").fill(f"{words}\nred")
    window.locator("#ck-sort").click()
    window.wait_for_function(
        "!document.querySelector('#ck-board .pending') && document.querySelector('.ck-column, .ck-error')"
    )
    assert phone.is_quiet()


def test_names_stay_names_on_chips(phone: Watched, browser: Browser, address: str, root: Path) -> None:
    ids = {path: id_ for id_, path in ImageIndex.open(root).store.paths()[1].items()}
    numbers = [ids[f"{name}.png"] for name in FILES]
    for start in range(0, len(numbers), 18):
        part = numbers[start : start + 18]
        query = f"?more={','.join(map(str, part[::2]))}&less={','.join(map(str, part[1::2]))}"
        phone.page.open(query)
        chips = answered(phone, ".ck-chips")
        said = chips.locator(".ck-chip > span").all_text_contents()
        assert sorted(said) == sorted(
            f"{'less' if i % 2 else 'more'} like {shown(FILES[start + i])}" for i in range(len(part))
        )
        assert phone.is_quiet()


def test_an_address_that_is_a_program_runs_nothing(phone: Watched) -> None:
    from urllib.parse import quote

    for words in PROMPTS[:8]:
        bad = quote(words)
        phone.page.open(f"?q={bad}&folder={bad}&library={bad}&since={bad}&shape={bad}&type={bad}&least={bad}#{bad}")
        assert phone.is_quiet()


def test_names_stay_names_in_the_library(phone: Watched) -> None:
    window = phone.page.window
    phone.page.tab("Library")
    assert answered(phone, ".ck-folder h3").text_content() == ROOT
    window.get_by_text("could not be read").click()
    failed = window.locator(".ck-folder td:first-child").all_text_contents()
    assert {printable(f"{FOLDER}/{name}.png") for name in FILES} <= set(failed)
    assert phone.is_quiet()
    window.get_by_role("button", name="Duplicates").click()
    copies = answered(phone, ".ck-copies").text_content()
    assert shown(FILES[0]) in copies
    assert shown(FILES[1]) in copies
    assert phone.is_quiet()
    for name in FILES:  # the file that a run has in its hands, and what it says of others
        for code in (None, 1):
            look = Look(code is None, False, 1, 2, f"{FOLDER}/{name}", 1.0, 2.0, (f"error: {name}", ROOT), code)
            window.evaluate("html => { document.querySelector('#ck-detail').innerHTML = html; }", _progress(look))
            assert printable(name) in window.locator("#ck-detail").text_content()
    window.wait_for_timeout(300)
    assert phone.is_quiet()


def test_what_is_wrong_is_said_in_text(phone: Watched, tmp_path: Path) -> None:
    window = phone.page.window
    phone.page.open()
    bad = f"{tmp_path}/<img src=x onerror=canary('error')>{'w' * 300}"
    phone.page.tab("Library")
    window.locator("#ck-place textarea, #ck-place input").fill(bad)
    window.locator("#ck-add").click()
    assert bad in answered(phone, "#ck-library-notice .ck-error").text_content()
    assert phone.is_quiet()
    phone.page.tab("Compare")
    window.locator("#ck-dataset input").fill(bad)
    window.locator("#ck-dataset input").press("Enter")
    window.locator("#ck-compare").click()
    assert bad in answered(phone, "#ck-compare-notice .ck-error").text_content()
    assert phone.is_quiet()
    phone.page.tab("Search")
    picture = {"name": "<img src=x onerror=canary('sent')>.png", "mimeType": "image/png", "buffer": b"no picture"}
    window.locator("#ck-file").set_input_files(picture)  # type: ignore[arg-type]
    answered(phone, "#ck-count .ck-error")
    assert phone.is_quiet()


def taken(watched: Watched, button: str) -> bytes:
    with watched.page.window.expect_download() as waiting:
        watched.page.window.locator(button).click()
    return Path(waiting.value.path()).read_bytes()


def test_a_table_of_results_runs_nothing_in_a_spreadsheet(desk: Watched) -> None:
    desk.page.window.keyboard.press("Control+a")
    rows = list(csv.DictReader(io.StringIO(taken(desk, ".ck-chosen-bar >> text='Table (CSV)'").decode(), newline="")))
    assert len(rows) == len(FILES) - 1  # of two with the same bytes one is shown
    assert not any(cell.startswith(FORMULA_STARTS) for row in rows for cell in row.values() if cell != row["score"])
    paths = [printable(f"{name}.png") for name in FILES]
    expected = [f"'{path}" if path.startswith(FORMULA_STARTS) else path for path in paths]
    assert set(expected) - {row["path"] for row in rows} in ({expected[0]}, {expected[1]})


def test_a_contact_sheet_shows_names_as_text(desk: Watched, browser: Browser, tmp_path: Path) -> None:
    desk.page.search("<script>canary('title')</script>")
    desk.page.window.locator("body").click(position={"x": 5, "y": 5})
    desk.page.window.keyboard.press("Control+a")
    sheet = tmp_path / "sheet.html"
    sheet.write_bytes(taken(desk, ".ck-chosen-bar >> text='Contact sheet'"))
    with robot(browser, sheet.as_uri(), viewport=PHONE) as page:
        watched = Watched(page)
        page.window.goto(sheet.as_uri())
        text = page.window.locator("body").inner_text()
        assert "<script>canary('title')</script>" in text
        assert shown(FILES[2]) in text
        assert page.window.locator("img").count() == len(FILES) - 1
        assert watched.is_quiet()


def test_sorted_pictures_keep_their_names_in_columns_chooser_table_and_plan(desk: Watched, tmp_path: Path) -> None:
    window = desk.page.window
    names = [name for name in map(clean, PROMPTS[:10]) if not {",", ";"} & set(name)]
    desk.page.tab("Classify")
    window.locator("#ck-classes textarea").fill("\n".join(["red", *names]))
    window.locator("#ck-sort").click()
    pick = answered(desk, "#ck-board .ck-pick")
    assert desk.is_quiet()
    pick.click()
    choices = window.locator(".ck-choice span").all_text_contents()
    assert {printable(name) for name in names} <= set(choices)
    window.locator(".ck-choice").nth(3).click()
    window.keyboard.press("Escape")
    assert desk.is_quiet()
    window.get_by_text("Export", exact=True).click()
    rows = list(csv.DictReader(io.StringIO(taken(desk, "#ck-labels-csv").decode(), newline="")))
    assert len(rows) == len(FILES)
    assert not any(cell.startswith(FORMULA_STARTS) for row in rows for cell in row.values())
    window.locator("#ck-sort-into textarea, #ck-sort-into input").fill(
        str(tmp_path / "<img src=x onerror=canary('to')>")
    )
    window.locator("#ck-plan").click()
    answered(desk, "#ck-plan-shown .ck-plan")
    assert desk.is_quiet()


def test_a_comparison_that_somebody_sends_is_text(phone: Watched, tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        for number in range(6):
            paint(tmp_path / "set" / name / f"{number}.png", tuple(max(part - number, 0) for part in colour))  # type: ignore[arg-type]
    made = compare(tmp_path / "set", ColourEncoder(), methods=("zeroshot",), shots=(1,), seeds=1, templates="plain")
    (tmp_path / "results.json").write_text(_poisoned(made).to_json())
    phone.page.open()
    phone.page.tab("Compare")
    with phone.page.window.expect_file_chooser() as chooser:
        phone.page.window.locator("#ck-open-results").click()
    chooser.value.set_files(tmp_path / "results.json")
    said = answered(phone, ".ck-result").text_content()
    assert "<img src=x onerror=canary('class')>" in said
    assert phone.is_quiet()


def _poisoned(made: Comparison) -> Comparison:
    bad = "<img src=x onerror=canary('{}')>" + "w" * 120
    classes = tuple(bad.format("class") + name for name in made.classes)
    mistake = Mistake("zeroshot", 0, classes[0], classes[1], 2, 6, (bad.format("file"), "../../x.png"))
    return replace(
        made,
        dataset=bad.format("dataset"),
        path=f"/{bad.format('path')}",
        split=bad.format("split"),
        classes=classes,
        notes=(bad.format("note"),),
        left_out=(bad.format("left"),),
        failed=(Failure(bad.format("failed"), bad.format("reason")),),
        mistakes=(mistake,),
        model={**made.model, "name": bad.format("model")},
        references={},
    )
