"""Sets of labels in cells, in lists and in columns of 0 and 1."""

import pytest

from whet.errors import InvalidData
from whet.tasks.label_sets import label_sets, marked_sets, multi_hot


def test_cells_and_lists_give_the_same_names():
    cells = ["joy,love", " joy , ", "", "anger"]
    lists = [["joy", "love"], ("joy",), [], ["anger"]]
    assert label_sets(cells, separator=",", source="f") == label_sets(lists, separator=",", source="f")
    assert label_sets(["a b|c", ""], separator="|", source="f") == [("a b", "c"), ()]
    assert label_sets([[4, 27]], separator=",", source="f") == [("4", "27")]


def test_names_in_a_list_may_hold_the_separator():
    assert label_sets([["Sports, outdoor", "b"]], separator=",", source="f") == [("Sports, outdoor", "b")]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a", "joy,joy"], r"a text must have each label once, but got joy twice in row 2 of f\.csv; remove one"),
        ([["a"], ["b", "b"]], r"each label once, but got b twice in row 2"),
        (
            ["a,b", "['joy', 'love']"],
            r"names with ',' between, but row 2 of f\.csv holds .*; write the names alone, or",
        ),
        (["a", "joy|love"], r"must have ',' between, but got 'joy\|love'; give --label-separator '\|'"),
        (["joy; love"], r"give --label-separator ';'"),
    ],
)
def test_what_cannot_be_meant_is_refused(cells, message):
    with pytest.raises(InvalidData, match=message):
        label_sets(cells, separator=",", source="f.csv")


def test_another_usual_sign_may_stand_in_names_where_the_separator_separates():
    assert label_sets(["rock|pop,jazz", "rock|pop"], separator=",", source="f") == [("rock|pop", "jazz"), ("rock|pop",)]


def test_columns_of_zero_and_one():
    columns = {"joy": ["1", "0", "False", "0"], "love": ["true", "0.0", "1.0", "0"]}
    assert marked_sets(columns, source="f") == [("joy", "love"), (), ("love",), ()]
    with pytest.raises(InvalidData, match=r"column joy of a label must hold 0 or 1, but got 'x' in row 2 of f; name"):
        marked_sets({"joy": ["1", "x"]}, source="f")


def test_the_vector_of_a_set_has_a_place_for_each_label():
    assert multi_hot({0, 2}, 3) == (1.0, 0.0, 1.0)
    assert multi_hot([], 2) == (0.0, 0.0)
