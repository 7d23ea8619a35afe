import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
from collections import defaultdict
from pathlib import Path

import pytest

import whet

MODULES = sorted(info.name for info in pkgutil.walk_packages(whet.__path__, prefix="whet."))


def test_public_names_are_sorted_and_there():
    assert whet.__all__ == sorted(whet.__all__)
    assert len(set(whet.__all__)) == len(whet.__all__)
    for name in whet.__all__:
        assert getattr(whet, name) is not None


def test_no_public_name_is_hidden_by_a_module():
    """A module of the same name takes the name's place as soon as it is imported."""
    whet.all_methods()
    assert not {name for name in whet.__all__ if inspect.ismodule(getattr(whet, name))}
    assert whet.all_methods()


def test_star_import_gives_the_public_names():
    space: dict[str, object] = {}
    exec("from whet import *", space)
    assert set(space) - {"__builtins__"} == set(whet.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_shows_is_described(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} must say what it is"
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__ and value.__doc__.strip(), f"{name}.{public} must say what it is"
            assert not value.__doc__.startswith(f"{public}("), f"{name}.{public} has the docstring that dataclass makes"
        if inspect.isclass(value) and value.__module__ == name:
            for member, function in vars(value).items():
                if inspect.isfunction(function) and not member.startswith("_"):
                    assert function.__doc__, f"{name}.{public}.{member} must say what it returns"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "whet.cli.app"])
def test_all_lists_what_a_module_shows(name):
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    if listed is not None:
        assert sorted(listed) == sorted(set(listed)), f"{name}.__all__ repeats a name"


def test_types_are_shipped():
    assert (Path(whet.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in (importlib.metadata.metadata("whet").get_all("Classifier") or [])


def test_the_command_is_installed():
    scripts = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="console_scripts")}
    assert scripts["whet"] == "whet.cli.app:main"


def outside() -> list[Path]:
    root = Path(__file__).parents[1]
    return sorted(path for folder in ("studies", "benchmarks") for path in (root / folder).rglob("*.py"))


def private_imports(source: str) -> list[str]:
    """The names that a script imports from elsewhere than `whet` or what a wing's package exports."""
    private = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "whet":
            module = importlib.import_module(node.module or "")
            public = getattr(module, "__all__", []) if module.__name__.count(".") <= 1 else []
            private += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]
        if isinstance(node, ast.Import):
            private += [alias.name for alias in node.names if alias.name.startswith("whet.")]
    return private


@pytest.mark.parametrize("path", outside(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_studies_and_benchmarks_use_the_public_api(path):
    assert private_imports(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line", ["from whet.models.load import load_tokenizer", "from whet.models import artifact", "import whet.api"]
)
def test_a_private_import_is_noticed(line):
    assert private_imports(line)


@pytest.mark.parametrize("path", outside(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_they_patch_exists(path):
    """A benchmark that switches a part of whet off would measure nothing if that part were called otherwise."""
    for name in re.findall(r'mock\.patch\("([\w.]+)"', path.read_text(encoding="utf-8")):
        assert pkgutil.resolve_name(name) is not None


def test_public_names_stand_for_one_thing():
    homes = defaultdict(set)
    for name in MODULES:
        module = importlib.import_module(name)
        if not hasattr(module, "__path__"):
            for public in getattr(module, "__all__", []):
                homes[public].add(name)
    assert {public: modules for public, modules in homes.items() if len(modules) > 1} == {}


def pages() -> list[Path]:
    root = Path(__file__).parents[1]
    return sorted(
        [
            *root.glob("*.md"),
            *(root / "docs").rglob("*.md"),
            *(root / "benchmarks").glob("*.md"),
            *(root / "studies").rglob("*.md"),
        ]
    )


@pytest.mark.parametrize("page", pages(), ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
