from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import word_tokenizer
from whet.errors import InvalidData
from whet.tasks.data import ANSWERED, Batches
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import Answers, kind_named
from whet.tasks.questions import Questions

KIND = kind_named("question_answering")
LEAST = torch.finfo(torch.float32).min
CONTEXT = " ".join(f"w{i}" for i in range(5, 55))


def questions(*answers: str) -> Questions:
    """Questions with one context, each with one answer in it, or without one where that is empty."""
    labels = [((text, CONTEXT.index(text)),) if text else () for text in answers]
    return Questions(["w90 w91"] * len(labels), labels, [CONTEXT] * len(labels))


def batches_of(examples: Questions, batch_size: int = 3) -> Batches:
    return encode(examples, word_tokenizer(), max_length=24, batch_size=batch_size)


def outputs_of(batch, seed: int = 0) -> SimpleNamespace:
    """Logits that depend on the token and its place among real ones alone, as those of a model."""
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(2, 99, generator=draw)
    start, end = (logits[batch["input_ids"]] for logits in table)
    return SimpleNamespace(start_logits=start, end_logits=end)


def knowing(examples: Questions, batches: Batches) -> Answers:
    """The answers of a model that knows what is right: it points to it wherever it is, and else to the first token."""
    rows = examples.encode(word_tokenizer(), max_length=24).rows
    width = max(len(row["input_ids"]) for row in rows)
    logits = np.zeros((2 * len(rows), width))
    for i, row in enumerate(rows):
        logits[2 * i, row["start_positions"]] = logits[2 * i + 1, row["end_positions"]] = 9
    return Answers(KIND, logits, np.repeat(np.arange(len(rows)), 2))


def test_a_window_has_a_row_for_the_start_and_one_for_the_end_over_answered_tokens():
    batch = batches_of(questions("w7 w8", "w50")).batches[0]
    outputs = outputs_of(batch)
    rows = KIND.rows(outputs, batch)
    assert rows.inputs.tolist() == [0, 0, 1, 1, 2, 2]
    for i, answered in enumerate(batch[ANSWERED].bool()):
        for row, own in ((2 * i, outputs.start_logits), (2 * i + 1, outputs.end_logits)):
            assert torch.equal(rows.logits[row][answered], own[i][answered])
            assert (rows.logits[row][~answered] == LEAST).all()


def on_the_left(batch) -> dict[str, Tensor]:
    """The same inputs with their padding before them, and one position more of it."""
    moved = {}
    for key, values in batch.items():
        wide = torch.zeros(values.shape[0], values.shape[1] + 1, dtype=values.dtype)
        for i, length in enumerate(batch["attention_mask"].sum(1)):
            wide[i, -length:] = values[i, :length]
        moved[key] = wide
    return moved


def test_the_side_of_the_padding_changes_no_row():
    batch = batches_of(questions("w7", "w50")).batches[-1]
    assert not batch["attention_mask"].all(), "some padding is needed"
    left = on_the_left(batch)
    own, moved = (KIND.rows(outputs_of(one), one).logits for one in (batch, left))
    assert torch.equal(moved[:, :-1], own) and (moved[:, -1] == LEAST).all()


def test_all_real_tokens_count_where_none_are_marked():
    batch = {key: value for key, value in batches_of(questions("w7")).batches[-1].items() if key != ANSWERED}
    logits = KIND.rows(outputs_of(batch), batch).logits
    assert torch.equal((logits > LEAST)[::2], batch["attention_mask"].bool())


def test_noise_of_real_tokens_does_not_depend_on_padding():
    logits = torch.randn(2, 7)
    wide = torch.nn.functional.pad(logits, (0, 5), value=LEAST)
    own, padded = (KIND.random_signs(one, torch.Generator().manual_seed(3)) for one in (logits, wide))
    assert torch.equal(padded[:, :7], own) and set(own.unique().tolist()) == {-1, 1}
    noise = KIND.noise(wide, padded)
    assert torch.allclose(noise[:, :7], KIND.noise(logits, own)) and not noise[:, 7:].any()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_that_do_not_count_change_no_divergence(temperature: float):
    teacher, student = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    wide = [torch.nn.functional.pad(one, (0, 3), value=LEAST) for one in (student, teacher)]
    loss = KIND.distillation_loss(student, teacher, temperature=temperature)
    assert KIND.distillation_loss(*wide, temperature=temperature) == pytest.approx(loss.item())
    own, padded = (
        KIND.divergence(*(KIND.softened(one, temperature).numpy() for one in pair))
        for pair in ((student, teacher), wide)
    )
    np.testing.assert_allclose(padded, own)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_answer_is_found_in_whichever_window_it_is(batch_size: int):
    examples = questions("w5", "w20 w21 w22", "w54", "w33 w34")
    batches = batches_of(examples, batch_size)
    predicted = KIND.predictions(knowing(examples, batches), batches)
    assert predicted.tolist() == ["w5", "w20 w21 w22", "w54", "w33 w34"]


def test_no_answer_is_given_only_where_data_have_questions_without_one():
    examples = questions("w5", "")
    batches = batches_of(examples)
    assert KIND.predictions(knowing(examples, batches), batches).tolist() == ["w5", ""]
    all_answerable = questions("w5", "w6")
    batches = batches_of(all_answerable)
    assert all(KIND.predictions(knowing(questions("", ""), batches), batches))


def test_answers_are_not_longer_than_asked():
    examples = questions("w20 w21 w22 w23")
    short = Questions(examples.texts, examples.labels, examples.pairs, longest_answer=2)
    batches = batches_of(short)
    [predicted] = KIND.predictions(knowing(examples, batches), batches)
    assert len(predicted.split()) <= 2


def test_the_head_has_a_start_and_an_end():
    assert KIND.pairing({0: "LABEL_0", 1: "LABEL_1"}, None).order == []
    with pytest.raises(InvalidData, match=r"^the model's head must give a start and an end, but got num_labels=3; "):
        KIND.pairing(dict.fromkeys(range(3), "x"), None)


def test_a_column_of_text_holds_no_answers():
    with pytest.raises(InvalidData, match=r"^questions in a file must come with answers and where they start, but"):
        KIND.read_labels(["x"], None, source="a file")
