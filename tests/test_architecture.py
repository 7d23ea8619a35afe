"""The rules of imports: they go down the levels, siblings never meet, and nobody names a sibling from outside.

Where this table differs from a module that you add, change the table in the same commit and say why.
"""

import ast
import importlib
from pathlib import Path

import pytest

import whet
from whet.lookup import members
from whet.method import Method

SOURCE = Path(whet.__file__).parent
PLURALS = ("layers", "methods", "metrics", "runtimes", "students", "tasks")

LEVELS = {
    0: ("errors",),
    1: (
        "bits",
        "clustering",
        "containment",
        "divergence",
        "heads",
        "layer",
        "linalg",
        "lookup",
        "machine",
        "measurement",
        "output",
        "parameter",
        "processes",
        "progress",
        "removal",
        "resources",
        "rounding",
        "table",
    ),
    2: (
        "allocation",
        "architecture",
        "attention",
        "bptt",
        "candidate",
        "checkpoint",
        "coded",
        "distillation",
        "embedding",
        "encoding",
        "feed_forward",
        "grammar",
        "importance",
        "layers",
        "lesson",
        "lora",
        "lstm",
        "narrowing",
        "onnx_export",
        "onnx_graph",
        "parts",
        "passes",
        "quantization",
        "rank_search",
        "recurrent",
        "refit",
        "resumption",
        "spectrum",
        "statistics",
        "stopwatch",
        "stream",
        "surgery",
        "teacher_cache",
        "trackers",
        "training",
        "vocabulary",
    ),
    3: (
        "attention_method",
        "budgeted",
        "clock",
        "dissection",
        "factorization",
        "method",
        "metric",
        "pruning",
        "recovery",
        "representation",
        "runtime",
        "structured",
        "student",
        "task",
    ),
    4: ("methods", "metrics", "runtimes", "students", "tasks"),
    5: ("artifact", "frontier", "preparation", "recipe", "trial"),
    6: (
        "benchmark",
        "deployment",
        "exploration",
        "goal",
        "inspection",
        "kept",
        "ladder",
        "ledger",
        "original",
        "overview",
        "page",
        "paper",
        "places",
        "proposals",
        "report",
        "reporting",
        "results",
        "shared_steps",
        "space",
    ),
    7: ("__init__", "__main__", "cli", "console", "demonstration", "options", "search_verb", "shell", "verbs"),
}
WITHIN = {
    "layer": {"lookup"},
    "layers": {"coded"},
    "architecture": {"layers"},
    "progress": {"processes"},
    "removal": {"linalg"},
    "table": {"resources"},
    "surgery": {"architecture", "layers"},
    "attention": {"layers", "spectrum", "surgery"},
    "embedding": {"layers", "passes"},
    "feed_forward": {"architecture", "passes"},
    "importance": {"architecture", "passes"},
    "bptt": {"stream", "training"},
    "lesson": {"attention", "distillation", "passes", "surgery"},
    "lora": {"architecture"},
    "lstm": {"architecture"},
    "narrowing": {"architecture", "attention", "statistics"},
    "parts": {
        "allocation",
        "architecture",
        "attention",
        "candidate",
        "feed_forward",
        "layers",
        "spectrum",
        "statistics",
        "surgery",
    },
    "candidate": {"allocation", "architecture", "layers", "spectrum"},
    "quantization": {"architecture", "layers", "passes"},
    "onnx_export": {"layers"},
    "rank_search": {"allocation", "architecture", "passes", "stopwatch"},
    "refit": {"architecture", "layers", "passes", "spectrum", "statistics"},
    "spectrum": {"statistics"},
    "stopwatch": {"layers", "passes"},
    "statistics": {"architecture", "passes"},
    "training": {"distillation", "encoding", "lesson", "lora", "resumption", "trackers"},
    "vocabulary": {"checkpoint"},
    "attention_method": {"factorization", "method"},
    "budgeted": {"method"},
    "clock": {"runtime"},
    "dissection": {"attention_method"},
    "factorization": {"method"},
    "pruning": {"method"},
    "recovery": {"method"},
    "structured": {"budgeted", "factorization", "method"},
    "artifact": {"recipe", "trial"},
    "frontier": {"trial"},
    "deployment": {"benchmark"},
    "inspection": {"benchmark"},
    "ledger": {"space"},
    "original": {"benchmark"},
    "places": {"benchmark"},
    "proposals": {"ledger", "space"},
    "space": {"places"},
    "ladder": {
        "benchmark",
        "deployment",
        "goal",
        "ledger",
        "original",
        "places",
        "proposals",
        "shared_steps",
        "space",
    },
    "exploration": {
        "benchmark",
        "goal",
        "ladder",
        "ledger",
        "original",
        "places",
        "proposals",
        "shared_steps",
        "space",
    },
    "overview": {"report", "results"},
    "page": {"kept", "overview", "report", "results"},
    "paper": {"overview"},
    "reporting": {"overview", "page", "paper", "report", "results"},
    "demonstration": {"verbs"},
    "shell": {"console"},
    "search_verb": {"console", "options"},
    "cli": {"console", "demonstration", "options", "search_verb", "shell", "verbs"},
    "__init__": {"verbs"},
    "__main__": {"cli"},
}
"""Imports within a level, beyond the table."""


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    """The module's place in the table: a plural folder stands for all its siblings."""
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Full names of the whet modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "whet":
            if node.module == "whet":
                found |= {f"whet.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("whet.")}
    return found


def level(name: str) -> int:
    return next(number for number, parts in LEVELS.items() if name in parts)


def test_every_module_has_a_level():
    known = {name for parts in LEVELS.values() for name in parts}
    assert {part(path) for path in files()} <= known


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path):
    own = part(path)
    for name in imported(path):
        other = name.split(".")[1]
        if other == own:
            continue
        allowed = level(other) < level(own) or other in WITHIN.get(own, set())
        assert allowed, f"{own} (level {level(own)}) imports {other} (level {level(other)})"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nobody_names_a_sibling(path):
    """Layers are the exception: a method must name the layer that it makes."""
    own = part(path)
    for name in imported(path):
        pieces = name.split(".")
        if pieces[1] in PLURALS and len(pieces) > 2:
            assert pieces[1] == "layers" and own != "layers", f"{path.name} names {name}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_surgery_puts_modules_into_models(path):
    if path.name == "surgery.py":
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    attributes = {node.func.attr for node in calls if isinstance(node.func, ast.Attribute)}
    assert "setattr" not in names and not attributes & {"add_module", "register_module"}


def test_no_cycles():
    graph = {path: imported(path) for path in files()}
    names = {"whet." + ".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in files()}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, f"a cycle through {path.name}"
        if path not in done:
            for name in graph[path]:
                if name in names:
                    visit(names[name], (*trail, path))
            done.add(path)

    for path in files():
        visit(path, ())


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.body[0].lineno
            assert (node.end_lineno or 0) - first < 60, f"{node.name} is long"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_all_lists_what_exists(path):
    name = ".".join(("whet", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), f"{name}.__all__ names {public}"


@pytest.mark.parametrize("method", members("whet.methods", Method), ids=lambda method: method.name())
def test_every_method_names_its_source(method):
    assert method.source(), f"the docstring of {method.__module__} must have a line `Source: ...`"
