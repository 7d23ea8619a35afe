"""A small part of each campaign; `make campaigns` runs all of them."""

import random

import pytest

from campaigns import bad_inputs, kills
from campaigns.situation import VERBS, prepare


@pytest.fixture(scope="module")
def situation(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("situation"))


@pytest.mark.parametrize("name", ["compress again", "finetune"])
def test_kills_lose_nothing(situation, tmp_path, name):
    verb = VERBS[name]
    whole = kills.uninterrupted(situation, verb, tmp_path / "whole")
    cases = kills.kills_of(verb, whole, 500, random.Random(0))
    for case in random.Random(1).sample(cases, 4):
        assert not kills.problems_after(case, situation, whole, tmp_path), case


@pytest.mark.parametrize("kind", bad_inputs.KINDS)
def test_bad_inputs_get_one_sentence(situation, tmp_path, kind):
    for case in bad_inputs.inputs(4, 1, [kind]):
        assert not bad_inputs.problems_of(case, situation, tmp_path), case
