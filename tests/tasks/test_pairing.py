"""Which output of a head is which class of the data: from names and numbers, and never from the alphabet."""

import random

import pytest

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.pairing import Pairing, in_order, look_alikes, pair_classes, whole_number


def paired(head, classes, *, ordered=False, **label_map) -> Pairing:
    return pair_classes(dict(enumerate(head)), classes, ordered=ordered, label_map=label_map)


def nameless(count: int) -> list[str]:
    return [f"LABEL_{i}" for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_equal_names_are_found_wherever_they_are(seed):
    classes = ["no", "No", "maybe", "yes", "5", "LABEL_1"]
    head = random.Random(seed).sample(classes, len(classes))
    found = paired(head, classes)
    assert [head[index] for index in found.order] == classes
    assert found.note == ""


@pytest.mark.parametrize("count", [2, 10, 11, 12, 101])
@pytest.mark.parametrize("spelled", ["{}", "{}.0", "{:03}", "LABEL_{}"])
def test_numbers_name_positions(count, spelled):
    """Sorted as text, 10 would come before 2."""
    labels = [spelled.format(i) for i in range(count)]
    classes = in_order(random.Random(0).sample(labels * 2, 2 * count))
    assert list(classes) == labels
    for head in (nameless(count), [str(i) for i in range(count)], [f"name {i}" for i in range(count)]):
        found = paired(head, classes)
        assert found.order == list(range(count))
        assert (found.note == "") == (head == labels)


def test_in_order_puts_text_by_text_and_numbers_by_number():
    assert in_order(["b", "10", "9"]) == ("10", "9", "b")
    assert in_order(["10", "-1", "9", "+3"]) == ("-1", "+3", "9", "10")
    assert whole_number(" 07.0 ") == 7
    assert [whole_number(text) for text in ("1.5", "one", "", "1" * 40, "٣")] == [None] * 5


def test_case_and_spaces_decide_where_names_are_not_equal():
    found = paired([" Positive", "NEGATIVE"], ("negative", "positive"))
    assert found.order == [1, 0]
    assert "without regard to case: negative=NEGATIVE, positive= Positive; give --label-map" in found.note
    assert paired(["us", "US"], ("US", "us")).order == [1, 0]
    for head in (["Us", "uS"], ["US", "them"]):
        with pytest.raises(InvalidData, match="must know the labels US, us, but it knows"):
            paired(head, ("US", "us"))


def test_a_known_order_decides_for_a_head_without_names_only():
    found = paired(nameless(2), ("unacceptable", "acceptable"), ordered=True)
    assert found.order == [0, 1]
    assert "usual order: unacceptable=LABEL_0, acceptable=LABEL_1; give --label-map" in found.note
    for head in (["bad", "good"], ["LABEL_1", "LABEL_0"]):
        with pytest.raises(InvalidData, match="must know the labels unacceptable, acceptable, but it knows"):
            paired(head, ("unacceptable", "acceptable"), ordered=True)


@pytest.mark.parametrize("head", [nameless(2), ["0", "1"], ["bad", "good"]])
def test_words_are_not_paired_by_the_alphabet(head):
    with pytest.raises(InvalidData, match=r"must know the labels no, yes, but it knows .*; say .*no=CLASS,yes=CLASS, "):
        paired(head, ("no", "yes"))


def test_an_example_that_is_copied_pairs_nothing_by_its_place():
    with pytest.raises(InvalidData, match="--label-map bad=Bad,good=CLASS,so-so=CLASS, "):
        paired(["neutral", "positive", "Bad"], ("bad", "good", "so-so"))


def test_numbers_that_may_count_other_classes_are_not_positions():
    """0 and 1 may be negative and positive, where the head has a neutral class between."""
    assert paired(nameless(3), ("0", "2")) == Pairing(
        [0, 2, 1],
        "labels are taken as the numbers of the model's classes: 0=LABEL_0, 2=LABEL_2; give --label-map if that is "
        "wrong; the data lack classes of the model: LABEL_1",
    )
    for classes in (("0", "1"), ("1", "2")):
        for head in (nameless(3), ["negative", "neutral", "positive"], ["0", "1", "2"]):
            with pytest.raises(InvalidData, match=r"num_labels=3; fine-tune it .*, or pair them with --label-map"):
                paired(head, classes)
    for classes in (("1", "2", "3"), ("0", "1", "1.0"), ("0", "1", "-2")):
        with pytest.raises(InvalidData, match="must know the labels"):
            paired(nameless(3), classes)


def test_classes_that_the_data_lack_come_last_by_name():
    found = paired(["z", "yes", "a", "no"], ("no", "yes"))
    assert found == Pairing([3, 1, 2, 0], "the data lack classes of the model: a, z")
    with pytest.raises(InvalidData, match="must have the task's classes no, si, but got num_labels=3"):
        paired(["yes", "a", "no"], ("no", "si"))
    with pytest.raises(
        InvalidData, match=r"num_labels=1; fine-tune it on this task, or name the right task or column$"
    ):
        paired(["LABEL_0"], ("no", "yes"), ordered=True)


@pytest.mark.parametrize("given", [{"no": "LABEL_1", "yes": "LABEL_0"}, {"no": "1", "yes": "label_0", "more": "x"}])
def test_the_user_pairs_what_names_do_not(given):
    assert paired(nameless(2), ("no", "yes"), **given) == Pairing([1, 0])
    assert paired(nameless(3), ("no", "yes"), **given) == Pairing([1, 0, 2])
    assert paired(["1", "0"], ("no", "yes"), no="1", yes="0").order == [0, 1], "names before numbers"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"no": "0"}, "must name every label of the data, no, yes, but got none for yes; add"),
        (
            {"no": "0", "yes": "2"},
            "must give classes of the model, .*, or their numbers from 0, but got yes=2; correct",
        ),
        ({"no": "0", "yes": "good"}, "must give classes of the model, .*, but got yes=good; correct"),
        ({"no": "0", "yes": "LABEL_0"}, "a class of its own, but got no=LABEL_0, yes=LABEL_0; correct"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(given, message):
    with pytest.raises(InvalidParameter, match=f"^--label-map .*{message}"):
        paired(nameless(2), ("no", "yes"), **given)


def test_look_alikes_differ_in_spelling_alone():
    assert look_alikes(["yes", "Yes", "no", "1", "01", "2"]) == ["yes", "Yes", "1", "01"]
