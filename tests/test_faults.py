"""The list of faults follows the source; `python tests/faults.py` says whether tests catch them."""

import pytest

from faults import Fault, all_faults


def test_names_of_faults_are_unique():
    names = [fault.name for fault in all_faults()]
    assert len(set(names)) == len(names) > 100


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.name)
def test_a_fault_can_be_put_in(fault: Fault):
    assert fault.problem() is None


def test_what_cannot_be_put_in_is_told():
    known = {"name": "x", "file": "errors.py", "new": "", "tests": ("test_faults.py",)}
    assert (
        Fault(**known, old="no such text").problem() == "its old text must stand once in errors.py, but stands 0 times"
    )
    only = Fault(**{**known, "tests": ("test_faults.py::test_none",)}, old="class WhetError(")
    assert only.problem() == "there is no test test_faults.py::test_none"
