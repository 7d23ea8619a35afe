"""The page in Debian's Chromium: it draws, tells, sorts, and asks the network for nothing."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from measured import keep, saved, trial
from whet.report.write import write_report

EVIL = "<img src=http://elsewhere.example/x onerror=alert(1)>"
CURVE = "epoch,training_loss,validation_loss,validation_metric\n1.0,0.7,0.6,0.5\n2.0,0.4,0.55,0.75\n3.0,nan,0.5,0.8\n"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SVD = [{"method": "factorization.svd", "keep": 0.4}]
NAMES = ("dense", "small (onnxruntime int8)", "small (onnxruntime)", "small", "worse", EVIL)
"""The rows as the table has them first: the baseline, then the fastest."""
MARKS = "#frontier .mark"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright, an extra of dev")
    if CHROMIUM is None:
        pytest.skip("the page is looked at in Chromium, but there is none; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, tokenizer) -> Path:
    """A report of six rows: three runtimes of one model, one that is really worse, and one whose name is an attack."""
    root = tmp_path_factory.mktemp("report")
    dense = saved(root / "dense", tokenizer, curve=CURVE)
    small = saved(root / "small", tokenizer, SVD)
    made = {"recipe": SVD, "model": small}
    keep(
        root / "run",
        trial(NAMES[0], model=dense),
        trial(NAMES[3], speedup=2.0, accuracy=0.792, mib=30, **made),
        trial(NAMES[2], speedup=3.0, accuracy=0.792, mib=30, runtime="onnxruntime", **made),
        trial(NAMES[1], speedup=5.0, accuracy=0.78, mib=10, runtime="onnxruntime", precision="int8", **made),
        trial(NAMES[4], speedup=1.5, accuracy=0.5, mib=50, loss_is_real=True),
        trial(NAMES[5], speedup=1.2, accuracy=0.75, mib=60, recipe=[{"method": EVIL, "keep": EVIL}]),
    )
    return write_report([root], root / "out")


class Seen:
    """A page that was opened, and what it asked for and complained of."""

    def __init__(self, browser, path: Path, **settings) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | settings))
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message) or dialog.dismiss())
        self.page.goto(path.as_uri())


@pytest.fixture
def show(browser, page_file):
    """Open the page; at the end it must have asked for nothing but itself, and said nothing."""
    opened: list[Seen] = []

    def seen(**settings):
        opened.append(Seen(browser, page_file, **settings))
        return opened[-1].page

    yield seen
    for one in opened:
        one.context.close()
        assert one.asked == [page_file.as_uri()]
        assert one.complaints == []


def rows(page) -> list[str]:
    return [row.get_attribute("data-value") for row in page.locator("#table tbody th").all()]


def background(page, selector: str) -> int:
    """How bright it is, from 0 to 3 times 255."""
    color = page.locator(selector).first.evaluate("one => getComputedStyle(one).backgroundColor")
    return sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(",")))


def test_the_frontier_is_drawn(show):
    page = show()
    assert page.locator(MARKS).count() == len(NAMES)
    assert page.locator(f"{MARKS} .bar").count() == 6 * len(NAMES) - 3  # the baseline is exactly as fast as itself
    assert page.locator(f"{MARKS} .ring").count() == 1
    boxes = [one.bounding_box() for one in page.locator(f"{MARKS} .shape").all()]
    assert all(box["width"] > 5 and box["height"] > 5 for box in boxes)
    ends = page.locator("#frontier").bounding_box()
    assert all(ends["x"] <= box["x"] and box["x"] + box["width"] <= ends["x"] + ends["width"] for box in boxes)
    assert len(page.locator("#frontier polyline").get_attribute("points").split()) == 3
    assert page.locator("#legend").inner_text().split("\n")[:3] == ["pytorch", "onnxruntime int8", "onnxruntime"]
    labels = page.locator("#frontier .label").all_text_contents()
    for name in NAMES:  # whether on the frontier or not
        assert any(name.startswith(label.removesuffix("…")) for label in labels), name


def test_a_short_label_loses_where_the_model_runs_before_its_name(show):
    """The mark's own colour and shape tell that."""
    page = show(viewport={"width": 390, "height": 844})
    assert page.evaluate("document.querySelector('#frontier').clientWidth") < 400
    labels = page.locator("#frontier .label").all_text_contents()
    assert "small" in labels and not any("(" in label for label in labels)


def test_marks_lie_at_their_values(show):
    """Faster is further right, better is higher, and more MiB is a larger area."""
    page = show()
    shape = {i: page.locator(f"{MARKS}[data-trial='{i}'] .shape").bounding_box() for i in range(len(NAMES))}
    assert shape[0]["x"] < shape[5]["x"] < shape[4]["x"] < shape[3]["x"] < shape[2]["x"] < shape[1]["x"]
    middle = {i: box["y"] + box["height"] / 2 for i, box in shape.items()}
    assert middle[0] < middle[3] < middle[5] < middle[4]
    bars = page.locator(f"{MARKS}[data-trial='0'] .bar").evaluate_all(
        "all => all.map(one => [one.y1, one.y2].map(y => y.baseVal.value))"
    )
    tall = max(abs(a - b) for a, b in bars)
    assert tall == pytest.approx(0.08 * (middle[4] - middle[0]) / 0.3, rel=0.05)
    area = {i: box["width"] * box["height"] for i, box in shape.items()}
    assert area[0] / area[4] == pytest.approx(80 / 50, rel=0.15)


def test_another_axis_is_drawn(show):
    page = show()
    page.select_option("#axis", label="time for a single text, median (ms)")
    shape = {i: page.locator(f"{MARKS}[data-trial='{i}'] .shape").bounding_box()["x"] for i in range(len(NAMES))}
    assert shape[1] < shape[2] < shape[3] < shape[4] < shape[5] < shape[0]


@pytest.mark.parametrize("by", ["hover", "focus", "click"])
def test_a_mark_shows_its_recipe_and_figures(show, by):
    page = show()
    tip, mark = page.locator("#tip"), page.locator(f"{MARKS}[data-trial='1']")
    assert tip.is_hidden()
    getattr(mark.locator(".hit") if by != "focus" else mark, by)()
    for text in (NAMES[1], "svd keep=0.4", "0.780", "0.741 to 0.819", "5.00 ×", "4.50 to 5.50", "10 MiB"):
        assert text in tip.inner_text()
    assert "svd keep=0.4" in mark.get_attribute("aria-label")
    assert page.locator("#table tr.lit").get_attribute("data-trial") == "1"
    page.keyboard.press("Escape")
    assert tip.is_hidden() and page.locator("#table tr.lit").count() == 0


def test_the_keyboard_reaches_every_mark(show):
    page = show()
    page.focus("#axis")
    reached = set()
    for _ in NAMES:
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.trial"))
        assert page.locator("#tip").is_visible()
    assert reached == set("012345")


def test_a_touch_shows_them_too(show):
    page = show(has_touch=True, is_mobile=True, viewport={"width": 375, "height": 800})
    page.locator(f"{MARKS}[data-trial='0'] .hit").tap()
    assert "dense" in page.locator("#tip").inner_text()
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 375


def test_the_table_is_sorted_by_any_column(show):
    page = show()
    assert rows(page) == list(NAMES)
    heading = page.locator("#table thead th", has_text="accuracy")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert rows(page) == [NAMES[i] for i in (4, 5, 1, 2, 3, 0)]
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert rows(page) == [NAMES[i] for i in (0, 2, 3, 1, 5, 4)]
    page.locator("#table thead button", has_text="single texts").click()
    assert rows(page) == [NAMES[i] for i in (0, 5, 4, 3, 2, 1)]
    page.locator("#table thead button").first.click()
    assert heading.get_attribute("aria-sort") == "none"
    assert rows(page) == [EVIL, *(NAMES[i] for i in (0, 3, 1, 2, 4))]


def test_a_row_highlights_its_mark(show):
    page = show()
    page.locator("#table tbody tr").nth(3).hover()
    assert page.locator(f"{MARKS}.lit").get_attribute("data-trial") == "3"


def test_layers_and_curves_are_drawn(show):
    page = show()
    assert page.locator(".heat").count() == 1
    cells = page.locator(".heat tbody td").all_inner_texts()
    assert cells[0] == "100" and len(cells) == 1 + 2 * 6 and all(int(cell) < 70 for cell in cells[1:])
    colors = page.locator(".heat tbody td").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colors)) > 1
    assert page.locator("#losses .curve").count() == 2 and page.locator("#scores .curve").count() == 1
    points = [len(one.get_attribute("points").split()) for one in page.locator("#losses .curve").all()]
    assert points == [2, 3]  # a loss that was no number is left out


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_scrolls_sideways(show, width):
    """Neither the page nor a table in it, with everything unfolded."""
    page = show(viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cut = "one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1"
    parts = page.locator(".figures, .figures td, .figures th, pre, dl")
    assert parts.evaluate_all(f"all => all.filter(one => {cut}).length") == 0
    page.set_viewport_size({"width": 1200, "height": 800})
    # (what waits inside the page would evaluate text there again and again, which the page forbids)
    from playwright.sync_api import expect  # the browser of this test came from it

    expect(page.locator("#frontier > svg")).to_have_attribute("viewBox", re.compile(r"^0 0 (9\d\d|1\d{3}) "))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_thing_that_is_seen_is_what_was_won(show, width):
    page = show(viewport={"width": width, "height": 800})
    heading = page.locator("h1")
    assert heading.inner_text() == "3.0 times as fast, accuracy 0.8 points lower (-0.9 to -0.7), 30 MiB instead of 80."
    box = heading.bounding_box()
    assert box["y"] < 100 and box["y"] + box["height"] < 400
    for text in ("3.00 ×", "30 MiB"):
        assert page.locator("header dd", has_text=text).first.bounding_box()["y"] < 800
    assert NAMES[2] in page.locator("header strong").first.inner_text()


@pytest.mark.parametrize("secure", [True, False])
def test_recipe_and_commands_are_copied(show, secure):
    """Also where there is no clipboard to write to, as on a page that plain http brought."""
    page = show()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not secure:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.evaluate("document.addEventListener('copy', () => { window.seen = getSelection().toString(); })")
    block = page.locator("details[open] .code").last
    block.locator("button").click()
    block.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()") if secure else page.evaluate("window.seen")
    assert "whet compress base --recipe recipe.yaml --task glue/mrpc --out small\n" in copied.replace("\r", "")
    assert copied.splitlines()[1] == "whet export small --to onnxruntime --precision int8 --task glue/mrpc"


def test_the_page_has_a_dark_mode(show):
    light, dark = show(color_scheme="light"), show(color_scheme="dark")
    for part in ("body", "section", ".tiles div"):
        assert background(light, part) > 600 and background(dark, part) < 200
    ink = [page.locator("h1").evaluate("one => getComputedStyle(one).color") for page in (light, dark)]
    assert ink[0] != ink[1]


def test_names_run_no_script(show):
    """One of them would load a picture and run a script, wherever it was taken for more than text."""
    page = show()
    assert page.locator("img").count() == 0
    page.locator(f"{MARKS}[data-trial='5'] .hit").hover()
    assert page.locator("#tip strong").inner_text() == EVIL


def test_without_scripts_the_figures_are_shown(show):
    page = show(java_script_enabled=False)
    assert rows(page) == list(NAMES)
    assert "report.svg show the same" in page.locator("noscript").inner_text()
    assert "whet compress base" in page.locator("details[open] pre").last.inner_text()
    assert page.locator(".copy").count() == 0
