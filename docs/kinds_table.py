"""Say which verbs take which kinds of models, from what the contract test of kinds showed.

    python docs/kinds_table.py          # runs the test, writes docs/kinds.json and the tables of both pages
    python docs/kinds_table.py --table  # writes the tables alone, from docs/kinds.json

The test is tests/test_kinds_contract.py.

A verb is said to take a kind if it has a test for it, and all of them passed. The tables lie between two comments of
README.md and of docs/concepts/task-kinds.md; a test compares them with docs/kinds.json.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ROOT / "docs" / "kinds.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "concepts" / "task-kinds.md")
VERBS = {
    "finetune": "test_it_is_fine_tuned",
    "distill": "test_it_is_distilled",
    "compress": "test_a_saved_model_answers_as_one_that_is_made_again",
    "measure": "test_it_is_measured_and_reported",
    "export": "test_it_is_exported",
    "search": "test_it_is_searched",
    "report": "test_it_is_measured_and_reported",
}
"""The test that shows whether a verb takes a kind."""
WIDTH = 100
"""Of the lines of README.md."""
START, END = "<!-- kinds: made by docs/kinds_table.py -->\n", "<!-- end of kinds -->\n"


class Outcomes:
    """Collects, as a plugin of pytest, which tests passed, by their name and the kind in their parameters."""

    def __init__(self, kinds: set[str]) -> None:
        self.passed: dict[tuple[str, str], list[bool]] = defaultdict(list)
        self._kinds = kinds

    def pytest_runtest_logreport(self, report: object) -> None:
        """Note the outcome of one phase of one test."""
        name, _, parameters = str(report.nodeid).rpartition("::")[2].partition("[")  # type: ignore[attr-defined]
        for kind in self._kinds & set(parameters.rstrip("]").split("-")):
            passed = report.outcome == "passed"  # type: ignore[attr-defined]
            if not passed or report.when == "call":  # type: ignore[attr-defined]
                self.passed[kind, name].append(passed)


def shown() -> dict[str, dict[str, bool]]:
    """Run the contract test, and return which verbs take each kind."""
    import pytest

    from whet.tasks.kinds.base import all_kinds

    outcomes = Outcomes(set(all_kinds()))
    pytest.main(["-q", str(ROOT / "tests" / "test_kinds_contract.py")], plugins=[outcomes])
    found = {(kind, verb): outcomes.passed[kind, test] for kind in sorted(all_kinds()) for verb, test in VERBS.items()}
    return {
        kind: {verb: bool(found[kind, verb]) and all(found[kind, verb]) for verb in VERBS}
        for kind in sorted(all_kinds())
    }


def table(kinds: Mapping[str, Mapping[str, bool]]) -> str:
    """Return the table of kinds and verbs; kinds with the same verbs share a row as far as it fits into README.md."""
    lines = [f"| kind | {' | '.join(VERBS)} |", "|---" * (len(VERBS) + 1) + "|"]
    for cells, names in _by_verbs(kinds).items():
        rows = [""]
        for name in names:
            joined = f"{rows[-1]}, {name}" if rows[-1] else name
            rows = [*rows[:-1], joined] if len(f"| {joined} | {cells} |") <= WIDTH else [*rows, name]
        lines += [f"| {row} | {cells} |" for row in rows]
    return "\n".join(lines) + "\n"


def _by_verbs(kinds: Mapping[str, Mapping[str, bool]]) -> dict[str, list[str]]:
    """The kinds in words, by the cells of their verbs."""
    found: dict[str, list[str]] = defaultdict(list)
    for kind, verbs in kinds.items():
        found[" | ".join("yes" if verbs[verb] else "-" for verb in VERBS)].append(
            kind.replace("multi_", "multi-").replace("_", " ")
        )
    return found


def with_table(text: str, made: str) -> str:
    """Return the text of a page with the table between its two comments."""
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{START}{made}{END}", text)


def main() -> None:
    """Write what tests showed, and the tables."""
    if "--table" not in sys.argv:
        SHOWN.write_text(json.dumps(shown(), indent=1) + "\n", encoding="utf-8")
    made = table(json.loads(SHOWN.read_text(encoding="utf-8")))
    for page in PAGES:
        page.write_text(with_table(page.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
