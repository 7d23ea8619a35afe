"""Commands that users are told to run can be copied into a shell."""

import shlex

import pytest

from whet.utils.commands import export_command


@pytest.mark.parametrize("folder", ["small", "structure 3, recovered", "it's", "a;b", "-x", "$HOME"])
def test_a_folder_stays_one_word(folder):
    assert shlex.split(export_command(folder, "openvino", "int8")) == [
        "whet", "export", folder, "--to", "openvino", "--precision", "int8",
    ]  # fmt: skip


def test_fp32_need_not_be_said():
    assert export_command("small", "onnxruntime") == "whet export small --to onnxruntime"
