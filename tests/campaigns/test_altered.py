"""A small part of the campaign on altered artifacts; `make campaigns` runs all of it."""

import pytest

from campaigns import altered


@pytest.fixture(scope="module")
def situation(tmp_path_factory):
    return altered.prepare_models(tmp_path_factory.mktemp("altered"))


@pytest.mark.parametrize("kind", altered.KINDS)
def test_alterations_are_noticed_or_do_not_matter(situation, tmp_path, kind):
    for case in altered.alterations(3, 1, [kind]):
        assert not altered.problems_of(case, situation, tmp_path), case
