"""Write the reference pages from the code: commands, methods, recipes and the Python API; and of families.

    python docs/generate.py

`make docs` runs it. The pages are kept in the repository, so that they can be read there too; a test compares them with
what the code says.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from unittest import mock

import families_page
from whet.cli.verbs import app
from whet.methods.base import Method, all_methods
from whet.utils.parameters import parameters

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
RECIPES = ROOT / "src" / "whet" / "methods" / "recipes"
STUB = ROOT / "src" / "whet" / "__init__.pyi"
MADE = "<!-- made by docs/generate.py; change the code instead -->\n\n"
_FROM = re.compile(r"^from \.([\w.]+) import (\w+) as \w+$", re.MULTILINE)
_STAGES = {
    "ARCHITECTURE": "architecture: which layers there are",
    "STRUCTURE": "structure: how layers are built",
    "TRAINING": "training: the values of the weights",
    "VOCABULARY": "vocabulary: which tokens there are",
    "STORAGE": "storage: how weights are stored",
}
_KINDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}


def pages() -> dict[str, str]:
    """Return every page by its path below `docs/reference`."""
    families = _families()
    return {
        "commands.md": commands(),
        "methods/index.md": overview(families),
        **{f"methods/{family}.md": family_page(family, found) for family, found in families.items()},
        "recipes.md": recipes(),
        "api.md": api(),
        "families.md": families_page.page(families_page.read()),
    }


def commands() -> str:
    """Return the page of the command line: every verb with its options."""
    with mock.patch.object(sys, "argv", ["whet"]):  # cyclopts names the program after it in places
        text = app.generate_docs(output_format="markdown")
    sections = dict(re.findall(r"^## whet (\w+)\n(.*?)(?=^## whet |\Z)", text, re.MULTILINE | re.DOTALL))
    verbs = [verb for verb in app if verb in sections]
    lines = [f"- [`whet {verb}`](#whet-{verb}): {_plain(_summary(app[verb].help))}" for verb in verbs]
    common = re.sub(r"(--\w+)", r"`\1`", app.help_epilogue or "")
    parts = [
        f"# Commands\n\n{MADE}{app.help}\n\n{common}\n\nExit codes: [one table](exit-codes.md).\n",
        "\n".join(lines) + "\n",
    ]
    for verb in verbs:
        # usage is no command to run, and wildcards in help texts are no emphasis
        text = re.sub(r"^```console$", "```text", sections[verb].strip(), flags=re.MULTILINE)
        text = re.sub(r"'([^'\n]*\*[^'\n]*)'", r"`\1`", text)
        parts.append(f"## whet {verb}\n\n" + re.sub(r"\n +(?=\S)", " ", text) + "\n")
    return "\n".join(parts)


def overview(families: Mapping[str, list[type[Method]]]) -> str:
    """Return the page that lists all methods."""
    parts = [
        f"# Methods\n\n{MADE}Every method, by family. `whet methods NAME` prints one on the command line. "
        "[Which one to take](../../guides/choose-a-method.md).\n"
    ]
    for family, methods in families.items():
        about = inspect.getdoc(importlib.import_module(f"whet.methods.{family}")) or ""
        rows = [
            f"| [`{_short(method)}`]({family}.md#{_short(method)}) | {_cell(method.summary())} | {_data(method)} |"
            for method in methods
        ]
        parts.append(
            f"## {family.capitalize()}\n\n{about.partition(': ')[2].capitalize() or about}\n\n"
            "| method | what it does | data |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def family_page(family: str, methods: list[type[Method]]) -> str:
    """Return the page of a family of methods: idea, parameters and source of each."""
    parts = [f"# Methods: {family}\n\n{MADE}[All methods](index.md)\n"]
    for method in methods:
        described = inspect.getdoc(sys.modules[method.__module__]) or ""
        idea = described.partition("\nSource: ")[0].partition("\n")[2].strip()
        differs = re.search(r"^Differs: (.*)", described, re.MULTILINE | re.DOTALL)
        rows = [
            f"| `{row.name}` | {_cell(row.stated.replace(' | ', ', ') or _KINDS.get(row.kind, row.kind))} | "
            f"{'' if row.default is None else f'`{row.default}`'} | {_cell(row.meaning)} |"
            for row in parameters(method)
        ]
        table = "| parameter | range | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
        parts += [
            f"## {_short(method)}\n\n{method.summary()}\n",
            f"{_plain(idea)}\n" if idea else "",
            f"Stage: {_STAGES[method.stage.name]}. Data: {_data(method)}.\n",
            table if rows else "It has no parameters.\n",
            f"Source: {_plain(method.source())}\n" if method.source() else "",
            f"Differs: {_plain(differs[1])}\n" if differs else "",
        ]
    return "\n".join(part for part in parts if part)


def recipes() -> str:
    """Return the page of the recipes that come with whet."""
    parts = [
        f"# Recipes that come with whet\n\n{MADE}`whet compress MODEL --recipe NAME` takes one of these by its name. "
        "[How a recipe is written](../concepts/recipes.md).\n"
    ]
    parts += [
        f"## {path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8').strip()}\n```\n"
        for path in sorted(RECIPES.glob("*.yaml"))
    ]
    return "\n".join(parts)


def api() -> str:
    """Return the page of the Python API, which mkdocstrings fills in."""
    homes = {name: module for module, name in _FROM.findall(STUB.read_text(encoding="utf-8"))}
    found = {name: getattr(importlib.import_module(f"whet.{module}"), name) for name, module in homes.items()}
    parts = [f"# Python API\n\n{MADE}`import whet` gives these names. Paths may be text or `pathlib.Path`.\n"]
    for title, belongs in (
        ("Functions", inspect.isfunction),
        ("Classes", lambda value: inspect.isclass(value) and not issubclass(value, BaseException)),
        ("Errors", lambda value: inspect.isclass(value) and issubclass(value, BaseException)),
    ):
        names = sorted(name for name, value in found.items() if belongs(value))
        rows = [f"| `{name}` | {_cell(_summary(inspect.getdoc(found[name])))} |" for name in names]
        parts.append(f"## {title}\n\n| name | what it is |\n|---|---|\n" + "\n".join(rows) + "\n")
        parts += [f"::: whet.{homes[name]}.{name}\n" for name in names]
    return "\n".join(parts)


def _families() -> dict[str, list[type[Method]]]:
    def family(name: str) -> str:
        return name.partition(".")[0]

    ours = {name: method for name, method in all_methods().items() if method.__module__.startswith("whet.")}
    return {key: [ours[name] for name in names] for key, names in groupby(sorted(ours), family)}


def _short(method: type[Method]) -> str:
    return method.name().rpartition(".")[2]


def _data(method: type[Method]) -> str:
    return "training text" if method.needs else "none"


def _summary(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return _plain(" ".join(text.split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return a text in which Markdown finds no emphasis, links or tags; what is between backticks stays."""
    return "".join(_escaped(text))


def _escaped(text: str) -> Iterator[str]:
    for i, part in enumerate(text.split("`")):
        yield re.sub(r"([*_\[\]]|<(?=[\w/!]))", r"\\\1", part) if i % 2 == 0 else f"`{part}`"


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
