"""Pooling: padding never counts, and each pooling is what its formula says of the real tokens alone."""

import pytest
import torch

from whet.numerics.pooling import POOLINGS, pool

LENGTHS = (1, 4, 7)
EXPECTED = {
    "cls": lambda rows: rows[0],
    "lasttoken": lambda rows: rows[-1],
    "max": lambda rows: rows.max(0).values,
    "mean": lambda rows: rows.mean(0),
    "mean_sqrt_len_tokens": lambda rows: rows.sum(0) / len(rows) ** 0.5,
    "weightedmean": lambda rows: (
        (rows * torch.arange(1, len(rows) + 1)[:, None]).sum(0) / (len(rows) * (len(rows) + 1) / 2)
    ),
}


def texts(*, left: bool):
    torch.manual_seed(0)
    rows = [torch.randn(length, 5) for length in LENGTHS]
    states, mask = torch.full((len(rows), max(LENGTHS), 5), 9.0), torch.zeros(len(rows), max(LENGTHS), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(max(LENGTHS) - len(row), None) if left else slice(len(row))
        states[i, place], mask[i, place] = row, 1
    return rows, states, mask


@pytest.mark.parametrize("left", [False, True], ids=["right padding", "left padding"])
@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_is_its_formula_over_the_real_tokens(name, left):
    rows, states, mask = texts(left=left)
    wanted = torch.stack([EXPECTED[name](row) for row in rows])
    torch.testing.assert_close(pool(states, mask, [name]), wanted)


def test_several_poolings_stand_one_after_the_other():
    _, states, mask = texts(left=False)
    both = pool(states, mask, ["cls", "mean"])
    torch.testing.assert_close(both, torch.cat([pool(states, mask, ["cls"]), pool(states, mask, ["mean"])], -1))


def test_a_model_of_the_first_token_alone_is_pooled_by_it():
    _, states, mask = texts(left=False)
    torch.testing.assert_close(pool(states[:, :1], mask, ["cls"]), states[:, 0])
