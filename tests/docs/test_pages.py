"""Links lead somewhere, pages can be reached, generated pages say what the code says, and README.md stays short."""

import json
import re
import signal
import tomllib
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import families_page
import kinds_table
import picture
import whet
from generate import FOLDER
from generate import pages as reference_pages
from pages import HOME, ROOT, anchors, links, pages, target_of
from whet.cli import shell
from whet.cli.verbs.search import NOTHING_HOLDS
from whet.evaluation.trial import Trial
from whet.report.tables import trial_table
from whet.tasks.kinds.base import all_kinds

DOCS = sorted((ROOT / "docs").rglob("*.md"))
EXIT_CODES = FOLDER / "exit-codes.md"
"""The one page of the reference that is written by hand."""


@cache
def generated() -> dict[str, str]:
    return reference_pages()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        if not link.is_local:
            assert link.target.startswith(("https://", "mailto:")), f"line {link.line}: {link.target}"
            continue
        target = target_of(page, link)
        assert target.is_file(), f"line {link.line}: {link.target} is no file"
        _, _, anchor = link.target.partition("#")
        assert not anchor or anchor in anchors(target), f"line {link.line}: no heading makes #{anchor}"


def test_every_page_can_be_reached_and_is_in_the_menu():
    assert set(DOCS) <= set(pages())
    menu = str(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    listed = set(re.findall(r"'(docs/[^']+\.md)'", menu))
    assert {str(page.relative_to(ROOT)) for page in DOCS} == listed


@pytest.mark.parametrize("name", sorted(page.relative_to(FOLDER).as_posix() for page in FOLDER.rglob("*.md")))
def test_generated_pages_say_what_the_code_says(name):
    if FOLDER / name != EXIT_CODES:
        said = (FOLDER / name).read_text(encoding="utf-8")
        assert said == generated().get(name), f"{name} is old; run: python docs/generate.py"


def test_every_generated_page_is_there():
    assert {path for path in FOLDER.rglob("*.md") if path != EXIT_CODES} == {FOLDER / name for name in generated()}


def test_the_api_page_has_every_public_name():
    listed = set(
        re.findall(r"^::: whet\.[\w.]+\.(\w+)$", (FOLDER / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert listed == set(whet.__all__)


def test_readme_can_be_read_in_minutes():
    text = HOME.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 120
    assert len(text.split()) <= 1300
    assert max(map(len, lines)) <= 100


def test_the_table_of_readme_is_what_was_measured():
    lines = HOME.read_text(encoding="utf-8").splitlines()
    for row in picture.rows():
        assert f"| {' | '.join(picture.cells(row))} |" in lines


def test_the_table_of_kinds_says_what_tests_showed():
    shown = json.loads(kinds_table.SHOWN.read_text(encoding="utf-8"))
    assert set(shown) == set(all_kinds())
    for page in kinds_table.PAGES:
        text = page.read_text(encoding="utf-8")
        assert kinds_table.START in text and kinds_table.with_table(text, kinds_table.table(shown)) == text


def test_the_sentence_of_readme_on_families_says_what_was_tried():
    families = families_page.read()
    home = HOME.read_text(encoding="utf-8")
    assert families_page.START in home
    assert families_page.with_sentence(home, families_page.sentence(families)) == home


def test_verbs_of_the_table_of_kinds_have_tests():
    tests = (ROOT / "tests" / "test_kinds_contract.py").read_text(encoding="utf-8")
    assert all(f"def {test}(" in tests for test in kinds_table.VERBS.values())


def test_exit_codes_of_the_page_are_those_of_the_command_line():
    listed = set(map(int, re.findall(r"^\| (\d+) \|", EXIT_CODES.read_text(encoding="utf-8"), re.MULTILINE)))
    stopped = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    assert listed == {0, shell.REFUSED, NOTHING_HOLDS, shell.FAULT, shell.NOT_PRINTED} | stopped


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# `whet search`: bars\n\n## Two, words_here\n\n<!-- # none -->\n", encoding="utf-8")
    assert anchors(Path(page)) == {"whet-search-bars", "two-words_here"}


def test_the_table_of_the_readme_is_that_of_the_benchmark():
    """Its script is benchmarks/first_steps.py; the lines above and below the table are not shown."""
    results = json.loads((ROOT / "benchmarks" / "first_steps.json").read_text(encoding="utf-8"))
    output = StringIO()
    table = trial_table([Trial.from_dict(trial) for trial in results["trials"]], title="", width=80)
    Console(file=output, width=80).print(table)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    shown = "\n".join(lines[: next(i for i, line in enumerate(lines) if line.startswith("±"))]).strip("\n")
    assert shown in (ROOT / "README.md").read_text(encoding="utf-8")
