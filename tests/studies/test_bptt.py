import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drone_ptb.bptt import BpttSettings, train_recurrent
from drone_ptb.stream import columns, token_losses, windows
from helpers import VOCAB
from whet.errors import InvalidModel, InvalidParameter
from whet.models.lstm import LstmConfig, LstmForCausalLM

SETTINGS = BpttSettings(epochs=2, learning_rate=2.0, columns=3, steps=5, checkpoint_every=3)
STEPS = 8


def tiny() -> LstmForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LstmForCausalLM(LstmConfig(vocab_size=VOCAB, hidden_size=8, num_hidden_layers=2, dropout=0.3))


def text(count: int, seed: int) -> Tensor:
    """Every token is its predecessor plus 1, 2 or 3, so that there is something to learn."""
    steps = torch.randint(1, 4, (count,), generator=torch.Generator().manual_seed(seed))
    return steps.cumsum(0) % VOCAB


TRAIN, VALIDATION = text(3 * 40, 1), text(60, 2)


def train(scratch: Path, **others) -> LstmForCausalLM:
    model = tiny()
    train_recurrent(model, TRAIN, VALIDATION, settings=SETTINGS, scratch=scratch, **others)
    return model


def assert_equal(found: nn.Module, expected: nn.Module) -> None:
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [(0, 1), (0, 4), (0, 8), (1, 2), (1, 3), (1, 8)])
def test_a_run_that_stopped_goes_on_to_the_same_weights(at: tuple[int, int], tmp_path: Path):
    expected = train(tmp_path / "whole")

    def stop(epoch: int, step: int) -> None:
        if (epoch, step) == at:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path / "broken", on_step=stop)
    seen: list[tuple[int, int]] = []
    again = train(tmp_path / "broken", on_step=lambda epoch, step: seen.append((epoch, step)))
    assert_equal(again, expected)
    assert len(seen) <= 2 * STEPS - (at[0] * STEPS + at[1]) + SETTINGS.checkpoint_every


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path: Path):
    script = (
        "import os, signal, sys, torch, test_bptt; from pathlib import Path; torch.set_num_threads(1);"
        "stop = lambda epoch, step: (epoch, step) == (1, 5) and os.kill(os.getpid(), signal.SIGKILL);"
        "test_bptt.train(Path(sys.argv[1]), on_step=stop)"
    )
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed")], env=env, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert {path.suffix for path in (tmp_path / "killed").iterdir()} == {".safetensors"}
    seen: list[tuple[int, int]] = []
    again = train(tmp_path / "killed", on_step=lambda epoch, step: seen.append((epoch, step)))
    assert seen == [(1, step) for step in range(4, 9)]
    assert_equal(again, train(tmp_path / "whole"))


def test_a_finished_run_does_nothing_more(tmp_path: Path):
    expected = train(tmp_path)
    seen: list[tuple[int, int]] = []
    assert_equal(train(tmp_path, on_step=lambda epoch, step: seen.append((epoch, step))), expected)
    assert not seen


def test_other_settings_data_or_models_are_refused(tmp_path: Path):
    train(tmp_path)
    other = BpttSettings(epochs=2, learning_rate=1.0, columns=3, steps=5)
    with pytest.raises(InvalidParameter, match=r"must go on with its own .* but got another learning_rate than"):
        train_recurrent(tiny(), TRAIN, VALIDATION, settings=other, scratch=tmp_path)
    with pytest.raises(InvalidParameter, match="but got another data_sha256 than"):
        train_recurrent(tiny(), VALIDATION, TRAIN, settings=SETTINGS, scratch=tmp_path)
    wider = LstmForCausalLM(LstmConfig(vocab_size=VOCAB, hidden_size=9))
    with pytest.raises(InvalidParameter, match="but got another shapes than"):
        train_recurrent(wider, TRAIN, VALIDATION, settings=SETTINGS, scratch=tmp_path)


def test_the_first_steps_are_plain_clipped_sgd_with_a_carried_state(tmp_path: Path):
    model, expected = tiny(), tiny()
    expected.config.dropout = expected.dropout.p = model.dropout.p = 0.0
    optimizer = torch.optim.SGD(expected.parameters(), lr=1.0)
    state = None
    for number, window in enumerate(windows(columns(TRAIN, 3), 5)):
        optimizer.param_groups[0]["lr"] = 2.0 * (1 - number / STEPS)
        out = expected(window.inputs, state=state)
        nn.functional.cross_entropy(out.logits.flatten(0, 1), window.targets.flatten()).backward()
        norm = torch.cat([parameter.grad.flatten() for parameter in expected.parameters()]).norm()
        for parameter in expected.parameters():
            parameter.grad *= min(1.0, 0.25 / float(norm))
        optimizer.step()
        optimizer.zero_grad()
        state = out.state.detach()
    assert number == STEPS - 1
    once = BpttSettings(epochs=1, learning_rate=2.0, columns=3, steps=5)
    train_recurrent(model, TRAIN, VALIDATION, settings=once, scratch=tmp_path)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path):
    model, random = tiny(), torch.get_rng_state()
    seen: list[int] = []
    settings = BpttSettings(epochs=4, learning_rate=5.0, columns=3, steps=5)
    curve = train_recurrent(
        model, TRAIN, VALIDATION, settings=settings, scratch=tmp_path, on_epoch=lambda curve: seen.append(len(curve))
    )
    assert seen == [1, 2, 3, 4]
    assert [row.epoch for row in curve] == [1, 2, 3, 4]
    assert not model.training
    best = min(row.validation_loss for row in curve)
    assert float(token_losses(model, columns(VALIDATION, 10)).mean()) == pytest.approx(best, rel=1e-12)
    assert curve[-1].training_loss < curve[0].training_loss
    assert torch.equal(torch.get_rng_state(), random)


def test_a_loss_that_is_no_longer_finite_is_refused(tmp_path: Path):
    model = tiny()
    model.lm_head.bias.data[3] = float("nan")
    with pytest.raises(InvalidModel, match="the loss must stay finite, but got nan after epoch 1"):
        train_recurrent(model, TRAIN, VALIDATION, settings=SETTINGS, scratch=tmp_path)


def test_bad_settings_are_refused():
    with pytest.raises(InvalidParameter, match="epochs"):
        BpttSettings(epochs=0)
    with pytest.raises(InvalidParameter, match="0 < clip"):
        BpttSettings(clip=0.0)
