import sys
from collections.abc import Sized

import pytest

from plugins import install
from whet.errors import InvalidPlugin, UnknownName
from whet.utils.lookup import by_name, choose, member_name, members

GOOD = "class Toy:\n    def __len__(self): return 0\n"
BROKEN = {
    "the module is missing": ("", "elsewhere:Toy", r"of whet-toy, which fails: ModuleNotFoundError: No module"),
    "the module fails": ("1 / 0", "whet_toy:Toy", r"of whet-toy, which fails: ZeroDivisionError: division by zero"),
    "the class is missing": ("", "whet_toy:Toy", r"which fails: AttributeError: .*; repair or uninstall whet-toy$"),
    "another class": (
        "class Toy: ...",
        "whet_toy:Toy",
        r"must name a concrete subclass of Sized, but got toy=whet_toy",
    ),
    "an abstract class": (
        "from collections.abc import Sized as Toy",
        "whet_toy:Toy",
        r"must name a concrete subclass of Sized",
    ),
    "no class": ("Toy = 3", "whet_toy:Toy", r"must name a concrete subclass of Sized"),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install code with an entry point of a group of its own, since lookups are kept."""

    def group_of(code: str, value: str) -> str:
        group = f"test.{tmp_path.name}"
        install(tmp_path, code, {group: {"toy": value}})
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "whet_toy", raising=False)
        return group

    return group_of


def test_an_entry_point_adds_a_member(installed):
    group = installed(GOOD, "whet_toy:Toy")
    own = members("whet.tasks.datasets", Sized)
    *others, toy = members("whet.tasks.datasets", Sized, group=group)
    assert (toy.__module__, toy.__name__, tuple(others)) == ("whet_toy", "Toy", own)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entry_point_is_refused_by_its_package(case, installed):
    code, value, message = BROKEN[case]
    with pytest.raises(InvalidPlugin, match=message):
        members("whet.tasks.datasets", Sized, group=installed(code, value))


def test_two_classes_of_one_name_are_refused():
    other = type("list", (list,), {"__module__": "whet_toy"})
    assert by_name([list], lambda member: ("list", "row")) == {"list": list, "row": list}
    with pytest.raises(InvalidPlugin, match=r"^names must differ, but got 'list' for builtins\.list and whet_toy\.li"):
        by_name([list, other], lambda member: (member.__name__,))


@pytest.mark.parametrize(
    ("module", "name", "called"),
    [
        ("whet.methods.pruning.heads", "Heads", "pruning.heads"),
        ("whet.methodsother.heads", "Heads", "heads"),
        ("__main__", "MyMethod", "my_method"),
        ("toy", "SVDPlus2", "svd_plus2"),
        ("toy", "KMeans", "k_means"),
        ("toy", "lower", "lower"),
    ],
)
def test_a_member_is_called_by_its_module_or_its_class(module, name, called):
    assert member_name(type(name, (), {"__module__": module}), "whet.methods") == called


def test_the_nearest_names_are_given():
    with pytest.raises(UnknownName, match=r"^the method must be a known name, but got 'drnoe'; did you mean drone\?$"):
        choose("drnoe", ["drone", "kfac"], what="the method")
