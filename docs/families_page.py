"""Say which families of models take which methods and verbs, from docs/families.csv.

    python tests/families.py       # tries what docs/families.csv lacks
    python docs/generate.py        # writes docs/reference/families.md, beside the other pages
    python docs/families_page.py   # writes the sentence of README.md, between two comments

A test compares both with docs/families.csv.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "families.csv"
HOME = ROOT / "README.md"
START, END = "<!-- families -->\n", "<!-- end of families -->\n"
ENCODER_DECODERS = "the model must be an encoder or a decoder"
"""How the refusal of every verb begins for families that are out of scope."""


class Refusal(NamedTuple):
    """What a family refuses, and why."""

    action: str
    reason: str
    """What must hold, as the error says it."""


class Family(NamedTuple):
    """What was tried on one family."""

    worked: tuple[str, ...]
    refused: tuple[Refusal, ...]

    @property
    def is_out_of_scope(self) -> bool:
        """Whether every action is refused because the family has an encoder and a decoder."""
        return not self.worked and all(refusal.reason == ENCODER_DECODERS for refusal in self.refused)


def read(path: Path = TABLE) -> dict[str, Family]:
    """Return the families of a table, by name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: Family(
            tuple(row["action"] for row in rows if row["family"] == name and row["status"] == "OK"),
            tuple(
                Refusal(row["action"], reason(row["said"]))
                for row in rows
                if row["family"] == name and row["status"] != "OK"
            ),
        )
        for name in dict.fromkeys(row["family"] for row in rows)
    }


def reason(said: str) -> str:
    """Return what must hold by an error's sentence, without what it names of one model."""
    required = said.partition(", but")[0]
    return re.sub(r"\b\w+(\.\w+){2,}", "a layer", required)


def sentence(families: Mapping[str, Family]) -> str:
    """Return what README.md says of families."""
    within = {name: family for name, family in families.items() if not family.is_out_of_scope}
    structure = sum("structure" in family.worked for family in within.values())
    cells = sum(len(family.worked) + len(family.refused) for family in within.values())
    worked = sum(len(family.worked) for family in within.values())
    return (
        f"[{len(families)} families](docs/reference/families.md) were tried with tiny random classifiers. "
        f"Of {len(within)} encoders\nand decoders, `structure` makes {structure} smaller. "
        f"{worked:,} of {cells:,} trials work; the others are refused.\n"
    )


def page(families: Mapping[str, Family]) -> str:
    """Return the page of all families."""
    reasons = _numbered(families)
    out = [name for name, family in families.items() if family.is_out_of_scope]
    actions = list(dict.fromkeys(action for family in families.values() for action in family.worked))
    lines = [
        "# Families of models",
        "",
        "What was tried on a tiny random classifier of each family, by the public verbs: every method named below,",
        f"and {', '.join(f'`{name}`' for name in actions if name in VERBS)}. A compressed model is saved, loaded again",
        "and compared with the one in memory; an export is compared with PyTorch. Everything that is not listed as",
        "refused works. The numbers say why; the reasons are below the table.",
        "",
        "`python tests/families.py` makes `docs/families.csv`, and `python docs/generate.py` makes this page.",
        "",
        "| family | works | refused |",
        "|---|---|---|",
    ]
    for name, family in families.items():
        if name not in out:
            refused = ", ".join(f"`{one.action}` ({reasons[one.reason]})" for one in family.refused)
            total = len(family.worked) + len(family.refused)
            lines.append(f"| {name} | {len(family.worked)} of {total} | {refused or '-'} |")
    lines += ["", "## Why", "", *(f"{number}. {_capital(text)}." for text, number in reasons.items()), ""]
    if out:
        lines += [
            "## Encoder-decoders",
            "",
            f"Every verb refuses models with an encoder and a decoder: {', '.join(out)}.",
            "",
        ]
    return "\n".join(lines)


VERBS = ("inspect", "reload", "distill", "measure")


def _numbered(families: Mapping[str, Family]) -> dict[str, int]:
    """The reasons of all families in scope with their numbers, the commonest first."""
    within: Sequence[Family] = [family for family in families.values() if not family.is_out_of_scope]
    counted = Counter(refusal.reason for family in within for refusal in family.refused)
    return {text: number for number, (text, _) in enumerate(counted.most_common(), 1)}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def with_sentence(text: str, made: str) -> str:
    """Return README.md with the sentence between its two comments."""
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{START}{made}{END}", text)


def main() -> None:
    """Write the sentence."""
    HOME.write_text(with_sentence(HOME.read_text(encoding="utf-8"), sentence(read())), encoding="utf-8")


if __name__ == "__main__":
    main()
