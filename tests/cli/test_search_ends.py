"""How `whet search` ends that is stopped: with the signal's exit code, unless it has found something."""

import pytest

from searches import made_up
from whet.searching.stages import StagedEvaluation

SEARCH = ("search", "model", "--train-file", "train.csv", "--dev-file", "dev.csv", "--runtime", "pytorch")


@pytest.mark.parametrize(("tried", "code", "said"), [(0, 130, "no structure was measured yet"), (3, 0, "saved to")])
def test_a_stopped_search(place, run, monkeypatch, tried, code, said):
    evaluate = made_up(drop=lambda structure: 0.0)

    def stopped(self, proposal, folder, past):
        if len(past) == tried:
            raise KeyboardInterrupt
        return evaluate(self, proposal, folder, past)

    monkeypatch.setattr(StagedEvaluation, "run", stopped)
    done = run(*SEARCH, "--max-drop", "10", "--time", "1h", "--out", "found")
    assert done.code == code, done.err
    assert said in done.out and "every candidate failed" not in done.out
    assert "stopped: the same command goes on" in done.out
