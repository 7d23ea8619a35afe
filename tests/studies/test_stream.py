import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from drone_ptb.stream import (
    calibration_stretches,
    columns,
    perplexity,
    read_stream,
    token_losses,
    windows,
    word_tokenizer,
)
from recurrent import tiny_lstm, tokens
from whet.errors import InvalidData

TEXT = " the cat <unk> N \n the dog 's n.v. \n the cat sat \n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_words_are_split_at_spaces_alone_and_lines_end(text: Path):
    tokenizer = word_tokenizer(text)
    stream = read_stream(text, tokenizer)
    expected = TEXT.replace("\n", "<eos>").split()
    assert tokenizer.convert_ids_to_tokens(stream.tolist()) == expected
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == [
        *("<eos>", "<unk>", "the", "cat", "'s", "N", "dog", "n.v.", "sat")
    ]
    assert tokenizer.eos_token_id == 0


def test_unknown_words_become_one_word(text: Path, tmp_path: Path):
    other = tmp_path / "other.txt"
    other.write_text("the zebra\n")
    assert read_stream(other, word_tokenizer(text)).tolist() == [2, 1, 0]


def test_the_tokenizer_is_the_same_after_save_and_load(text: Path, tmp_path: Path):
    tokenizer = word_tokenizer(text)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert torch.equal(read_stream(text, again), read_stream(text, tokenizer))


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
def test_bad_files_are_refused(content: str | bytes | None, tmp_path: Path):
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidData, match=r"the text must .*bad\.txt"):
        word_tokenizer(path)


def test_an_empty_file_has_no_stream(text: Path, tmp_path: Path):
    tokenizer = word_tokenizer(text)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InvalidData, match="the text must hold words, but got none"):
        read_stream(tmp_path / "empty.txt", tokenizer)


@pytest.mark.data
def test_the_penn_treebank_has_its_known_sizes(data_dir: Path):
    folder = data_dir / "ptb"
    tokenizer = word_tokenizer(folder / "ptb.train.txt")
    assert len(tokenizer) == 10_000
    for split, count in (("valid", 73_760), ("test", 82_430)):
        path = folder / f"ptb.{split}.txt"
        stream = read_stream(path, tokenizer)
        words = [word for line in path.read_text().splitlines() for word in (*line.split(), "<eos>")]
        assert len(stream) == count
        assert tokenizer.convert_ids_to_tokens(stream.tolist()) == words


def test_columns_are_contiguous():
    assert columns(torch.arange(11), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    with pytest.raises(InvalidData, match="every column must have 2 tokens, but got 5 tokens for 3 columns"):
        columns(torch.arange(5), 3)


@pytest.mark.parametrize("steps", [1, 3, 4, 9, 50])
def test_windows_predict_every_token_but_the_first_once(steps: int):
    ids = columns(torch.arange(20), 2)
    found = list(windows(ids, steps))
    assert torch.equal(torch.cat([one.inputs for one in found], 1), ids[:, :-1])
    assert torch.equal(torch.cat([one.targets for one in found], 1), ids[:, 1:])
    assert all(one.inputs.shape[1] <= steps for one in found)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_losses_are_those_of_one_pass(steps: int):
    model, ids = tiny_lstm(), tokens(2, 20)
    with torch.inference_mode():
        p = model(ids[:, :-1]).logits.double().softmax(-1)
    expected = -p.gather(-1, ids[:, 1:, None])[..., 0].log()
    torch.testing.assert_close(token_losses(model, ids, steps=steps), expected, rtol=0, atol=1e-5)


def drawn(count: int) -> Tensor:
    return 3 + torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_perplexity_is_the_exponential_of_the_mean():
    losses = drawn(1234)
    found = perplexity(losses, block=100)
    assert found.value == pytest.approx(math.exp(float(losses.mean())), rel=1e-12)
    assert found.low < found.value < found.high
    assert found.n == 1234
    assert found.conditions["blocks"] == 13
    assert found.better == "lower"


def test_a_uniform_guess_over_ten_thousand_words_has_their_number():
    found = perplexity(torch.full((700,), math.log(10_000)), block=100)
    assert found.value == pytest.approx(10_000)
    assert found.high == pytest.approx(found.low)


def test_the_difference_is_paired():
    # one model is worse by the same factor everywhere: the difference is certain though both intervals are wide
    losses = drawn(1000)
    found = perplexity(losses + 0.01, baseline=losses, block=50)
    assert found.versus is not None
    assert found.versus.significant
    assert found.versus.value == pytest.approx(math.exp(float(losses.mean())) * (math.exp(0.01) - 1), rel=1e-6)
    assert found.versus.high - found.versus.low < (found.high - found.low) / 10
    same = perplexity(losses, baseline=losses).versus
    assert same is not None
    assert same.value == 0
    assert not same.significant


def test_blocks_that_vary_together_widen_the_interval():
    stories = drawn(40).repeat_interleave(50)
    apart, together = perplexity(stories, block=1), perplexity(stories, block=50)
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_stretches_are_pieces_of_the_text():
    ids = torch.arange(100)
    found = calibration_stretches(ids, count=5, length=8, batch_size=2, seed=3)
    rows = torch.cat([batch["input_ids"] for batch in found])
    assert [len(batch["input_ids"]) for batch in found] == [2, 2, 1]
    assert torch.equal(rows - rows[:, :1], torch.arange(8).expand(5, 8))
    assert found.tokens == 40
    again = calibration_stretches(ids, count=5, length=8, batch_size=2, seed=3)
    assert torch.equal(rows, torch.cat([batch["input_ids"] for batch in again]))
    with pytest.raises(InvalidData, match="the text must hold 101 tokens, but got 100"):
        calibration_stretches(ids, count=5, length=101, batch_size=2, seed=3)
