"""Every command and every block of Python in README.md and docs/ is run, page by page and in order.

A block with a comment `<!-- not run: why -->` before it is not; one with `<!-- file: NAME -->` becomes that file; one
with `<!-- output -->` shows columns that the commands before it print.
"""

import contextlib
import io
import json
import linecache
import runpy
import shlex
import sys
import tomllib
import types
import warnings
from pathlib import Path

import pytest
import yaml

from pages import ROOT, Block, blocks, pages
from whet.cli.verbs import app
from whet.methods.recipe import Recipe

OURS = [page for page in pages() if page.relative_to(ROOT).parts[0] not in ("studies", "benchmarks", "CHANGELOG.md")]
MOST_NOT_RUN = 12
"""Blocks that may be left out, each for the reason that its comment gives."""
NOT_RUN, FILE, OUTPUT = "not run", "file", "output"
SHOWN = ("text", "csv", "dockerfile", "html")
"""Languages of blocks that are looked at only."""


def words_of(text: str) -> list[list[str]]:
    """Return the words of each command of a block of shell lines."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str]) -> str:
    """Run `whet ...` or `python FILE` and return its output, which goes to a file where `> FILE` asks for that."""
    into = None
    if len(words) > 2 and words[-2] == ">":
        words, into = words[:-2], Path(words[-1])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if words[0] == "whet":
            code = app(words[1:], exit_on_error=False, print_error=False, result_action="return_value")
            assert code in (None, 0), f"{shlex.join(words)} ends with exit code {code}"
        elif words[0] == "python" and len(words) == 2:
            runpy.run_path(words[1], run_name="__main__")
        else:
            raise AssertionError(f"a test can run whet and python FILE, but got {shlex.join(words)}; mark it: not run")
    if into is not None:
        into.write_text(out.getvalue(), encoding="utf-8")
    return out.getvalue()


def run_python(text: str, name: str, space: types.ModuleType) -> None:
    """Run a block as a notebook runs a cell: what it defines is in `__main__`, and its source can be looked up."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), vars(space))


def check_data(block: Block) -> None:
    """Read a block of data; a list of steps must be a recipe."""
    if block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif "method:" in block.text:
        path = Path("block.yaml")
        path.write_text(block.text, encoding="utf-8")
        assert Recipe.read_several(path)
    else:
        yaml.safe_load(block.text)


def run_block(block: Block, page: Path, space: types.ModuleType, printed: list[str]) -> None:
    """Run a block, or write it, by its language and its comment; `printed` has what the commands before it print."""
    if FILE in block.marks:
        path = Path(block.marks[FILE])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    if NOT_RUN in block.marks:
        return
    if block.language == "sh":
        printed[:] = [run_command(words) for words in words_of(block.text)]
    elif block.language == "python" and FILE not in block.marks:
        run_python(block.text, f"<{page.name}, line {block.line}>", space)
    elif OUTPUT in block.marks:
        heads = set(block.text.partition("──")[0].split())
        assert heads and heads <= set("".join(printed).split()), "commands no longer print these columns"
    elif block.language in ("yaml", "json", "toml"):
        check_data(block)
    elif block.language != "python":
        assert block.language in SHOWN, f"line {block.line}: a block needs a language, but got {block.language!r}"


def runs(page: Path) -> bool:
    return any(block.language not in SHOWN for block in blocks(page))


@pytest.mark.parametrize("page", list(filter(runs, OURS)), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_a_page_run_in_order(page, working_folder, monkeypatch):
    space, printed = types.ModuleType("__main__"), list[str]()
    monkeypatch.setitem(sys.modules, "__main__", space)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # no page shows what is going to be dropped
        for block in blocks(page):
            try:
                run_block(block, page, space, printed)
            except Exception as error:
                error.add_note(f"{page.relative_to(ROOT)}, the block in line {block.line}:\n{block.text}")
                raise


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = [block.marks[NOT_RUN] for page in OURS for block in blocks(page) if NOT_RUN in block.marks]
    assert all(reasons)
    assert len(reasons) <= MOST_NOT_RUN, reasons


def test_a_wrong_block_is_noticed(working_folder):
    space = types.ModuleType("__main__")
    page = ROOT / "README.md"
    for language, text, marks in (
        ("sh", "whet measure nowhere", {}),
        ("sh", "rm train.csv", {}),
        ("python", "import whet; whet.nothing", {}),
        ("yaml", "- method: nothing", {}),
        ("", "whet measure mymodel", {}),
        ("text", "another table\n──\n", {"output": ""}),
    ):
        with pytest.raises(Exception, match=r"must|attribute|none|test can run|language|no longer"):
            run_block(Block(1, language, text, marks), page, space, ["a table"])
