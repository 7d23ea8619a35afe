"""One option under two names, where verbs call the same thing differently."""

import pytest

from whet.cli.verbs import app


@pytest.mark.parametrize("option", ["--to", "--runtime"])
def test_export_takes_the_name_that_measure_has(option):
    command, bound, _ = app.parse_args(["export", "model", option, "onnxruntime"], exit_on_error=False)
    assert command.__name__ == "export" and bound.arguments["to"] == "onnxruntime"
