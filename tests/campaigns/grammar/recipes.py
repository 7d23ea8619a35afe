"""Recipes of odd steps, and odd parameters on the command line."""

import json
import random
from typing import Any

from campaigns.grammar.base import NUMBERS, TEXTS, VALUES, BadInput
from campaigns.situation import DATA

__all__ = ["odd_value", "recipe_inputs"]

METHODS = (
    "svd",
    "kfac",
    "drone",
    "magnitude",
    "kmeans",
    "weight_only",
    "half",
    "dynamic_int8",
    "heads",
    "neurons",
    "vocabulary",
    "structure",
    "embedding",
    "sparsegpt",
)
PARAMETERS = (
    "keep",
    "speedup",
    "ranks",
    "sparsity",
    "bits",
    "group_size",
    "clusters",
    "include",
    "epochs",
    "parts",
    "pattern",
    "calibration",
    "nothing",
)


def recipe_inputs(chance: random.Random) -> BadInput:
    """Return a call with a recipe of odd steps, or with odd parameters on the command line."""
    if chance.random() < 0.5:
        words = ["--method", chance.choice((*METHODS, "nothing", "", "../svd", "quantization.svd"))]
        for _ in range(chance.randint(1, 3)):
            words += ["--set", f"{chance.choice(PARAMETERS)}={odd_value(chance)}"]
        return BadInput(kind="recipe", argv=["compress", "ft", *words, *DATA, "--out", "o"])
    text = _recipe_text(chance)
    return BadInput(
        kind="recipe",
        argv=["compress", "ft", "--recipe", "r.yaml", *DATA, "--out", "o"],
        about=text[:60].encode("ascii", "replace").decode().replace("\n", " / "),
        edit=lambda folder: (folder / "r.yaml").write_bytes(text.encode("utf-8", "surrogatepass")) and None,
    )


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


def _recipe_text(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return chance.choice(
            (
                "",
                "null",
                "[]",
                "{}",
                "1",
                "- 1",
                "- []",
                "- {}",
                "[" * 5000,
                "{" * 5000,
                "- {method: svd, keep: .5, keep: .4}",
                BOMB,
                f"- method: svd\n  ranks:\n{BOMB}".replace("\na", "\n    a"),
                "a: &a [*a]",
                "!!python/object/apply:os.system ['touch pwned']",
                "- {method: svd, keep: !!python/name:os.system }",
                "\x00",
                "\ud83d",
                "- method: svd\n keep: 1",
                "---\n---\n- {method: svd}",
                "- &a {method: svd, keep: .5}\n- *a",
                "%YAML 9.9\n---\n- 1",
                "- " * 3000,
            )
        )
    steps = []
    for _ in range(chance.randint(1, 3)):
        step: dict[str, Any] = {"method": chance.choice((*METHODS, chance.choice(VALUES)))}
        for _ in range(chance.randint(0, 3)):
            step[chance.choice(PARAMETERS)] = chance.choice((*VALUES, 0.5, 0.9, 4, 8))
        steps.append(step)
    return json.dumps(steps)


def odd_value(chance: random.Random) -> str:
    odd = chance.choice((*NUMBERS, *TEXTS, "0.5", "4", "[" * 50_000, "{a: 1}", "!!python/name:os.system", "&a [*a]"))
    return odd.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
