"""Files that users name, and YAML within limits."""

import os

import pytest
import yaml

from whet.errors import InvalidRecipe
from whet.utils.inputs import one_line
from whet.utils.yaml_files import read_yaml


def read(tmp_path, text: str):
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    return read_yaml(tmp_path / "a.yaml", what="the recipe", error=InvalidRecipe)


def aliases(levels: int) -> str:
    """Values that name the ones before them nine times: 9 ** levels, where they are written out."""
    lines = ["x0: &x0 [a, b]", *(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, levels + 1))]
    return "- method: svd\n  ranks:\n" + "".join(f"    {line}\n" for line in lines)


GOOD = [
    "- method: svd\n  keep: 0.5\n",
    '[{"method": "svd", "keep": 0.5}]',
    "- &a {method: svd, keep: [1, 2]}\n- *a\n",
    "- &a {method: svd, keep: 1}\n- <<: *a\n  keep: 2\n",
    "",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_within_the_limits_is_read_as_the_safe_loader_does(tmp_path, text):
    assert read(tmp_path, text) == yaml.safe_load(text)


def test_what_a_recipe_with_shared_values_is_written_as_is_read(tmp_path):
    shared = {"*.query": 3}
    steps = [{"method": "svd", "ranks": shared}, {"method": "kfac", "ranks": shared}]
    text = yaml.safe_dump(steps)
    assert "*id001" in text
    assert read(tmp_path, text) == steps


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- method: svd\n  keep: 0.5\n  keep: 0.6\n", "the key 'keep' twice, in line 3"),
        ('[{"method": "svd", "keep": 1, "keep": 2}]', "the key 'keep' twice, in line 1"),
        ("[" * 10**5, "more than 20 levels of nesting in line 1"),
        ("- " * 10**5, "more than 20 levels of nesting in line 1"),
        ("{a: " * 10**5, "more than 20 levels of nesting in line 1"),
        (aliases(30), "more than 20,000 values in line 7, with aliases written out"),
        ("- &a [*a]", "an alias inside of what it names in line 1"),
        ("x" * 2**21, "more than 1,048,576 bytes"),
        ("- !!python/object/apply:os.system [true]", "could not determine a constructor for the tag"),
        ("- keep: " + "9" * 5000, "Exceeds the limit"),
        ("- 2020-13-45", "month must be in 1..12"),
        ("- {[1]: 2}", "unhashable key"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_beyond_them_is_one_sentence(tmp_path, text, reason):
    with pytest.raises(
        InvalidRecipe, match=rf"^the recipe must be a .* file, but got .*a.yaml: .*{reason}[^\n]*; correct it$"
    ):
        read(tmp_path, text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "."])
def test_what_is_no_file_is_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRecipe, match=r"the recipe must be a file, but got .*, which is a"):
        read_yaml(tmp_path / name, what="the recipe", error=InvalidRecipe)


def test_a_line_is_one_line_that_can_be_printed():
    assert one_line("a\n b\x1b[31m\udcff") == "a b\ufffd[31m\ufffd"
    assert one_line("x" * 600) == "x" * 500 + "..."
