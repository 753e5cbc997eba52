"""The pages in a real browser: figures draw, nothing is fetched, nothing complains, nothing overflows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from analysis import Results, trials, write_report
from analysis.all_figures import all_figures
from analysis.compare import compare, write_comparison
from analysis.files import PNG_SCALE, WIDTH_PX, write_figures
from analysis.results import Unavailable
from tests.best_folder import add_best
from tests.browser import PROGRAM, Page, browsing
from tests.results_folder import Wanted, build, change

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on this machine")
WIDE, NARROW = 1200, 390
DRAWN = """[...document.querySelectorAll('[data-figure]')].filter((canvas) => {
    const box = canvas.querySelector('.main-svg')?.getBoundingClientRect();
    return canvas.querySelector('.overplot path, .overplot image') && box.width > 200 && box.height > 100;
}).length"""
FIGURES = "document.querySelectorAll('[data-figure]').length"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    folder = build(results, Wanted(classes=("healthy & well", "<b>ill</b>"), trials=9))
    change(folder, 3, notes=["memory did not suffice: trained in 2 parts of a batch"])
    add_best(folder)
    return write_report(folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def opened(page: Page, report: Path) -> Page:
    page.open(report, WIDE)
    page.until(f"{DRAWN} === {FIGURES}")
    return page


def test_every_figure_has_drawn_and_the_console_is_silent(opened: Page) -> None:
    assert opened.says(FIGURES) >= 10
    assert opened.errors == []


def test_nothing_but_the_page_itself_is_asked_for(opened: Page, report: Path) -> None:
    others = [url for url in opened.requested if not url.startswith(("data:", "blob:", "about:"))]
    assert set(others) == {report.absolute().as_uri()}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(opened: Page, width: int, dark: bool) -> None:
    opened.look(width, dark=dark)
    opened.until(
        f"innerWidth === {width} && matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()}"
    )
    opened.until(f"document.documentElement.scrollWidth <= {width}")
    contrast = """(() => {
        const luminance = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const page = luminance(getComputedStyle(document.body).backgroundColor);
        return ['body', '.soft', 'figcaption', '.canvas text'].map((name) => {
            const style = getComputedStyle(document.querySelector(name));
            const ink = luminance(name === '.canvas text' ? style.fill : style.color);
            return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
        });
    })()"""
    assert min(opened.says(contrast)) >= 4.5, "WCAG 2.2, 1.4.3"


def test_a_click_on_a_heading_sorts_and_another_one_turns_it_round(opened: Page) -> None:
    column = "[...document.querySelector('#trials tbody').rows].map((row) => parseFloat(row.cells[0].textContent))"
    click = "document.querySelector('#trials thead th button').click()"
    opened.says(click)
    falling = opened.says(column)
    opened.says(click)
    rising = opened.says(column)
    assert len(rising) == 8
    assert rising == sorted(rising) == falling[::-1]
    assert opened.says("document.querySelector('#trials th').getAttribute('aria-sort')") == "ascending"


def test_pictures_are_inside_the_page(opened: Page) -> None:
    opened.says("document.querySelector('.pictures').scrollIntoView()")
    opened.until(
        "[...document.querySelectorAll('.pictures img')].every((image) => image.complete && image.naturalWidth > 0)"
    )
    assert opened.says("document.querySelectorAll('.pictures img').length") == 3


def test_it_prints_with_its_figures(opened: Page, tmp_path: Path) -> None:
    opened.look(WIDE)
    opened.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert opened.says(DRAWN) == opened.says(FIGURES)
    assert opened.errors == []


def test_a_comparison_opens_in_silence(page: Page, report: Path, tmp_path: Path) -> None:
    other = build(tmp_path, Wanted(name="other", seed=1))
    compared = write_comparison(compare([report.parent, other]), tmp_path)
    page.errors.clear()
    page.open(compared, NARROW)
    assert page.says("document.querySelectorAll('table').length") == 3
    assert page.says("document.documentElement.scrollWidth") <= NARROW
    assert page.errors == []


def test_figures_become_files_and_what_has_none_says_why(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise Unavailable("too few")

    figures = all_figures(Results.open(report.parent), trials(report.parent))
    monkeypatch.setattr("analysis.files.all_figures", lambda *_: {"roc": figures["roc"], "other": unavailable})
    written, missing = write_figures(report.parent, ["svg", "png"])
    assert missing == {"other": "too few"}
    assert [file.name for file in written] == ["roc.svg", "roc.png"]
    assert "false-positive rate" in written[0].read_text()
    with Image.open(written[1]) as picture:
        height = figures["roc"]().layout.height
        assert picture.size == (WIDTH_PX * PNG_SCALE, height * PNG_SCALE)
