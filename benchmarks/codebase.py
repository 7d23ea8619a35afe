"""How easy the code is to enter, in figures.

    python benchmarks/codebase.py [--source src/whet] [--json codebase.json]

counts files, names and engines in the parsed source, and times `import whet` beside `import torch`: each in a process
of its own, in turn, several rounds. Give `--source` the folder of another version to compare.
"""

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Print the figures, and write them if asked to."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--source", type=Path, default=ROOT / "src" / "whet", help="Folder of the package.")
    options.add_argument("--rounds", type=int, default=5, help="Rounds of timed imports; 0 leaves them out.")
    options.add_argument("--json", type=Path, help="File to write the figures to.")
    given = options.parse_args()
    figures = counted(given.source)
    if given.rounds:
        figures |= import_seconds(given.source.parent, given.rounds)
    for name, value in figures.items():
        print(f"{name:60} {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def counted(source: Path) -> dict[str, object]:
    """Return what can be counted in the source."""
    trees = {path.relative_to(source): ast.parse(path.read_text(encoding="utf-8")) for path in source.rglob("*.py")}
    bodies = sorted(length for tree in trees.values() for length in body_lengths(tree))
    doubles = names_for_two_things(trees)
    return {
        "files in src/whet itself": sum(path.is_file() for path in source.iterdir()),
        "modules": len(trees),
        "public names that stand for two things": len(doubles),
        "  which": ", ".join(sorted(doubles)),
        "modules that read a clock around a call": len(list(calling(trees, "perf_counter"))),
        "modules that call a model for its logits": len(list(matching(source, r"\*\*.*\)\.logits"))),
        "modules that hash": len(list(matching(source, r"\bhashlib\b"))),
        "modules that format an interval": len(list(matching(source, r"low\b[^}\n]*\} to \{"))),
        "modules that CONTRIBUTING names to read first": read_first(source.parents[1] / "CONTRIBUTING.md"),
        "lines of a function's body: p50 / p90 / max": " / ".join(
            str(bodies[min(len(bodies) - 1, int(share * len(bodies)))]) for share in (0.5, 0.9, 1)
        ),
    }


def body_lengths(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of every function's body, without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                yield (node.end_lineno or 0) - body[0].lineno + 1


def names_for_two_things(trees: Mapping[Path, ast.Module]) -> set[str]:
    """Return the names that two modules define and list in `__all__`."""
    known: Counter[str] = Counter()
    for path, tree in trees.items():
        if path.name == "__init__.py":
            continue
        listed = {
            text.value
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for text in ast.walk(node.value)
            if isinstance(text, ast.Constant)
        }
        known.update(name for name in listed if isinstance(name, str))
    return {name for name, count in known.items() if count > 1}


def calling(trees: Mapping[Path, ast.Module], name: str) -> Iterator[Path]:
    """Yield the modules that call an attribute of that name."""
    for path, tree in trees.items():
        if any(isinstance(node, ast.Attribute) and node.attr == name for node in ast.walk(tree)):
            yield path


def matching(source: Path, pattern: str) -> Iterator[Path]:
    """Yield the modules whose text the pattern matches."""
    return (path for path in source.rglob("*.py") if re.search(pattern, path.read_text(encoding="utf-8")))


def read_first(contributing: Path) -> int:
    """Return how many modules the table of the layout names."""
    if not contributing.is_file():
        return 0
    layout = re.search(r"^## Layout\n(.*?)^## ", contributing.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return len(set(re.findall(r"`([\w/]+\.py)`", layout[1]))) if layout else 0


def import_seconds(path: Path, rounds: int) -> dict[str, object]:
    """Return the seconds of processor time that imports take, in turn, each in a process of its own."""
    taken = defaultdict(list)
    for _ in range(rounds):
        for module in ("torch", "whet"):
            taken[module].append(seconds_of(f"import {module}", path))
    over = [whet - torch for whet, torch in zip(taken["whet"], taken["torch"], strict=True)]
    return {
        "import torch, s of processor time (median)": round(statistics.median(taken["torch"]), 2),
        "import whet over import torch, s (median)": round(statistics.median(over), 2),
        "import whet over import torch, s (lowest to highest)": f"{min(over):.2f} to {max(over):.2f}",
    }


def seconds_of(statement: str, path: Path) -> float:
    """Return the processor time of a statement in a new process."""
    script = f"import os; {statement}; print(sum(os.times()[:2]))"
    environment = os.environ | {"PYTHONPATH": str(path)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    return float(ended.stdout.split()[-1])


if __name__ == "__main__":
    main()
