"""The Markdown pages of the repository: their links, headings and blocks, and the tree that the site is built from.

    python docs/pages.py build/pages

copies README.md and every page and picture that it leads to, each at its place, so that a link between them holds in
the repository and on the site.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "README.md"
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_MARK = re.compile(r"<!-- (\w[\w -]*?)(?:: (.*?))? -->", re.DOTALL)


class Link(NamedTuple):
    """A link of a page."""

    line: int
    """Where its paragraph begins, from 1."""
    target: str
    """What it says, such as `guides/search.md#bars`."""

    @property
    def is_local(self) -> bool:
        """Whether it leads into the repository."""
        return not re.match(r"[a-z]+:", self.target)


class Block(NamedTuple):
    """A block of code of a page."""

    line: int
    """Where it begins, from 1."""
    language: str
    """What stands behind its fence, or an empty text."""
    text: str
    """What it holds."""
    marks: dict[str, str]
    """Of the comments right before it, such as `<!-- not run: needs two machines -->`: what they say by their names."""


def pages() -> list[Path]:
    """Return README.md and every page that it leads to, one after the other."""
    found, open_pages = {HOME}, [HOME]
    while open_pages:
        for path in _led_to(open_pages.pop()):
            if path.suffix == ".md" and path not in found and path.is_file():
                found.add(path)
                open_pages.append(path)
    return sorted(found)


def links(page: Path) -> list[Link]:
    """Return the links and pictures of a page."""
    return [
        Link(line, str(child.attrs.get("href") or child.attrs.get("src")))
        for line, child in _inline(_tokens(page))
        if child.type in ("link_open", "image")
    ]


def target_of(page: Path, link: Link) -> Path:
    """Return the file that a local link leads to."""
    name = unquote(link.target.partition("#")[0])
    return (page.parent / name).resolve() if name else page


def anchors(page: Path) -> set[str]:
    """Return what links may name behind `#`: the headings as GitHub spells them."""
    tokens = _tokens(page)
    titles = [tokens[i + 1].children or [] for i, token in enumerate(tokens) if token.type == "heading_open"]
    text = [
        "".join(child.content for child in children if child.type in ("text", "code_inline")) for children in titles
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in text}


def blocks(page: Path) -> list[Block]:
    """Return the blocks of code of a page, in order."""
    found, marks = [], dict[str, str]()
    for token in _tokens(page):
        if token.type == "html_block":
            marks |= {name: " ".join((said or "").split()) for name, said in _MARK.findall(token.content)}
        elif token.type == "fence":
            found.append(Block((token.map or [0])[0] + 1, token.info.strip(), token.content, marks))
        if token.type not in ("html_block", "paragraph_open", "inline", "list_item_open"):
            marks = {}
    return found


def stage(folder: Path) -> None:
    """Copy every page, and what it leads to, to its place below a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    files = {path for page in pages() for path in (page, *_led_to(page)) if path.is_file()}
    for path in files:
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _led_to(page: Path) -> Iterator[Path]:
    for link in links(page):
        if link.is_local:
            yield target_of(page, link)


def _tokens(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))


def _inline(tokens: list[Token]) -> Iterator[tuple[int, Token]]:
    for token in tokens:
        for child in token.children or []:
            yield (token.map or [0])[0] + 1, child


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
