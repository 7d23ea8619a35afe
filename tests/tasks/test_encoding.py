import re
from pathlib import Path

import numpy as np
import pytest
import torch

import whet
from helpers import VOCAB
from whet.tasks.data import Examples
from whet.tasks.encoding import (
    batch_sizes,
    encode,
    fitting_batch_sizes,
    pad,
    pad_batches,
    say_cut,
    shortest_first,
    token_ids,
)


def drawn(count: int, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    texts = [
        " ".join(f"w{word}" for word in random.integers(5, VOCAB, size=random.integers(1, 20))) for _ in range(count)
    ]
    return Examples(texts, random.integers(2, size=count).tolist())


@pytest.mark.parametrize("order", ["sorted", "as drawn"])
@pytest.mark.parametrize("budget", [1, 7, 40, 200, 10_000])
def test_batches_are_as_full_as_the_budget_allows(order: str, budget: int):
    lengths = np.random.default_rng(budget).integers(1, 30, size=60).tolist()
    lengths = sorted(lengths) if order == "sorted" else lengths
    sizes = batch_sizes(lengths, budget)
    assert sum(sizes) == len(lengths) and min(sizes) >= 1
    start = 0
    for i, size in enumerate(sizes):
        own = lengths[start : start + size]
        assert size * max(own) <= budget or size == 1
        if i + 1 < len(sizes):  # one more would be too many
            assert (size + 1) * max(lengths[start : start + size + 1]) > budget
        start += size


def test_no_examples_make_no_batch():
    assert batch_sizes([], 10) == ()


def test_a_budget_counts_tokens_with_padding(tokenizer):
    examples = shortest_first(drawn(50), tokenizer, max_length=16)
    sizes = fitting_batch_sizes(examples, tokenizer, max_length=16, batch_tokens=64)
    batches = encode(examples, tokenizer, max_length=16, batch_size=sizes)
    shapes = [tuple(batch["input_ids"].shape) for batch in batches]
    assert [size for size, _ in shapes] == list(sizes) and len(set(sizes)) > 1
    assert max(size * length for size, length in shapes) <= 64


@pytest.mark.parametrize("size", [1, 7, 25, 50, 60, (20, 1, 29)])
def test_examples_stay_in_their_order_however_they_are_batched(tokenizer, size):
    examples = drawn(50)
    batches = encode(examples, tokenizer, max_length=12, batch_size=size)
    found = [ids[mask.bool()] for b in batches for ids, mask in zip(b["input_ids"], b["attention_mask"], strict=True)]
    wanted = [torch.tensor(tokenizer(text, truncation=True, max_length=12)["input_ids"]) for text in examples.texts]
    assert len(found) == len(wanted) and all(map(torch.equal, found, wanted))
    assert batches.labels.tolist() == list(examples.labels)


def test_a_batch_is_padded_to_its_longest_and_labels_come_along(tokenizer):
    rows = Examples(["w5 w6 w7 w8", "w5"], [1, 0]).encode(tokenizer, max_length=16).rows
    batch = pad(rows, tokenizer)
    longest = len(rows[0]["input_ids"])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, longest)
    assert batch["input_ids"][1].tolist()[len(rows[1]["input_ids"]) :] == [tokenizer.pad_token_id] * 3
    assert batch["attention_mask"].sum(1).tolist() == [longest, longest - 3]
    assert batch["labels"].tolist() == [1, 0]
    assert [set(one) for one in pad_batches(rows, tokenizer, batch_size=1)] == [batch.keys() - {"labels"}] * 2


def test_token_ids_are_not_truncated(tokenizer):
    long = " ".join(["w5"] * 3000)
    [found] = token_ids([long], tokenizer)
    assert len(found) == 3000 + tokenizer.num_special_tokens_to_add()


def test_text_is_truncated_by_examples_and_padded_in_one_wing():
    folder = Path(whet.__file__).parent
    rule = re.compile(r"truncation=|padding=(?!\(0, )|tokenizer\.pad\(|DataCollator\w+\(")  # tables are padded too
    found = [path for path in folder.rglob("*.py") if rule.search(path.read_text(encoding="utf-8"))]
    assert {path.parent for path in found} == {folder / "tasks"}, "only forms of examples, beside `Examples` itself"


@pytest.mark.parametrize("count", [100, 3000])
def test_the_share_of_texts_that_are_cut_is_said_once(tokenizer, capsys, count):
    """Two special tokens count too; of many texts a sample tells."""
    texts = ["w5 " * (9 if i % 4 else 8) for i in range(count)]
    examples = Examples(texts, [i % 2 for i in range(count)])
    assert examples.cut_share(tokenizer, max_length=10) == 0.75
    assert Examples(texts, examples.labels, texts).cut_share(tokenizer, max_length=18) == 1
    task = whet.load_task("agreement")
    for length in (11, 10, 10):
        say_cut(task, examples, tokenizer, max_length=length)
    said = capsys.readouterr().err
    assert said.count("note") == 1
    share = re.match(r"note: (\d+)% of the texts are longer than 10 tokens", said)
    assert int(share[1]) == pytest.approx(75, abs=0 if count <= 500 else 6)
