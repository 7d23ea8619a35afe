"""The rules of the layout: imports go down the wings, methods never import methods, only `surgery` assigns modules.

A rule is a function from a module's name and parsed source to the sentences that say what breaks it, so that each can
be shown to catch a deliberate fault.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import whet
from whet.methods.base import Method
from whet.utils.lookup import members

SOURCE = Path(whet.__file__).parent
WINGS = (
    ("errors",),
    ("utils",),
    ("numerics",),
    ("tasks",),
    ("models",),
    ("calibration",),
    ("run",),
    ("runtimes", "training"),
    ("evaluation",),
    ("methods",),
    ("searching", "report"),
    ("api",),
    ("cli",),
)
"""A wing imports only wings that stand before it; two in one row never import each other."""
TOP = ("whet", "whet.__main__")
"""The package itself and its command, which may import everything."""
PLURALS = (
    "whet.evaluation.metrics",
    "whet.methods.*",
    "whet.run.kinds",
    "whet.runtimes",
    "whet.tasks.datasets",
    "whet.tasks.kinds",
    "whet.training.students",
)
"""Packages whose members are found by name; `_underscore` modules and those in ENGINES are parts, not members."""
ENGINES = ("base", "export", "export_cache")
MODULE_LINES, FUNCTION_LINES = 400, 60


def module_name(path: Path) -> str:
    parts = ("whet", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def modules() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


MODULES = modules()


def imported(tree: ast.Module) -> set[str]:
    """Full names of the modules of whet that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and node.module.split(".")[0] == "whet":
            # `from whet.models import artifact` imports the module whet.models.artifact
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = inner & MODULES.keys()
            found |= modules if len(modules) == len(inner) else modules | {node.module}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "whet"}
    return found


def height(module: str) -> int:
    wing = module.split(".")[1]
    return next(i for i, row in enumerate(WINGS) if wing in row)


def upward(module: str, tree: ast.Module) -> Iterator[str]:
    if module in TOP:
        return
    for other in imported(tree):
        same = other != "whet" and other.split(".")[1] == module.split(".")[1]
        if other in TOP or (not same and height(other) >= height(module)):
            yield f"{module} imports {other}, which is not below it"


def plural_of(module: str) -> str | None:
    """The plural package that a module is a member of."""
    package, _, name = module.rpartition(".")
    outer = f"{package.rpartition('.')[0]}.*"
    if name.startswith("_") or name in ENGINES or module in {p.replace(".*", "") for p in PLURALS}:
        return None
    listed = package in PLURALS or (outer in PLURALS and package != "whet.methods")
    return package if listed else None


def named_member(module: str, tree: ast.Module) -> Iterator[str]:
    for other in imported(tree):
        if plural_of(other) is not None and other != module:
            yield f"{module} names {other}, which is found by name only"


def other_family(module: str, tree: ast.Module) -> Iterator[str]:
    parts = module.split(".")
    if parts[1:2] != ["methods"]:
        return
    for other in imported(tree):
        theirs = other.split(".")
        if theirs[1:2] == ["methods"] and len(theirs) > 3 and theirs[2] != parts[2]:
            yield f"{module} imports {other} of another family"


def assigned_module(module: str, tree: ast.Module) -> Iterator[str]:
    if module == "whet.models.surgery":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("setattr", "add_module", "register_module", "set_submodule"):
                yield f"{module}:{node.lineno} puts a module into a model; that is for whet.models.surgery"


RULES = (upward, named_member, other_family, assigned_module)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule):
    assert [fault for module, tree in MODULES.items() for fault in rule(module, tree)] == []


FAULTS = {
    "an import upwards": (upward, "whet.models.load", "from whet.evaluation.trial import Trial"),
    "an import of a module upwards": (upward, "whet.numerics.linalg", "from whet.models import artifact"),
    "wings in one row": (upward, "whet.training.trainer", "def f():\n    from whet.runtimes.base import Runtime"),
    "the package itself": (upward, "whet.utils.files", "import whet"),
    "a method imports a sibling": (
        named_member,
        "whet.methods.factorization.drone",
        "from whet.methods.factorization.kfac import Kfac",
    ),
    "a runtime by its name": (named_member, "whet.evaluation.benchmark", "from whet.runtimes import openvino"),
    "a family's parts elsewhere": (
        other_family,
        "whet.methods.pruning.heads",
        "from whet.methods.factorization._base import Factorization",
    ),
    "a module assigned into a model": (assigned_module, "whet.methods.pruning.heads", "setattr(parent, name, layer)"),
    "a submodule set": (assigned_module, "whet.training.lora", "model.set_submodule(name, layer)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_deliberate_fault_is_caught(fault):
    rule, module, source = FAULTS[fault]
    assert list(rule(module, ast.parse(source)))


def test_every_wing_is_listed():
    assert {name.split(".")[1] for name in MODULES if name not in TOP} == {wing for row in WINGS for wing in row}


def test_the_top_level_fits_on_a_screen():
    assert len([path for path in SOURCE.iterdir() if path.is_file()]) <= 6


def test_no_cycles():
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a cycle: {' -> '.join((*trail, name))}"
        if name in MODULES and name not in done:
            for other in sorted(imported(MODULES[name])):
                visit(other, (*trail, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_modules_and_functions_are_short():
    long = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MODULE_LINES:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.body[0].lineno
                if (node.end_lineno or 0) - first >= FUNCTION_LINES:
                    long.append(f"{path}: {node.name}")
    assert long == []


def test_all_lists_what_exists():
    for name in MODULES:
        module = importlib.import_module(name)
        missing = [public for public in getattr(module, "__all__", []) if not hasattr(module, public)]
        assert not missing, f"{name}.__all__ names {missing}"


def test_every_method_names_its_source():
    assert [method.name() for method in members("whet.methods", Method) if not method.source()] == []
