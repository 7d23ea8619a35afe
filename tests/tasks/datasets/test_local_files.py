"""The tasks that read published files: small files of the same form, a hub in memory, and the real data."""

import gzip
import re

import datasets
import numpy as np
import pytest

from whet.errors import InvalidData
from whet.tasks.base import task_named

SICK_HEADER = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
JUDGMENTS = ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")
FILES = {
    "tweet_sentiment": {
        "train.csv": b'textID,text,selected_text,sentiment\n1," so, sad",sad,negative\n2,,,neutral\n3,fun,,positive\n',
        "test.csv": b"textID,text,sentiment\n1,a,negative\n2,b,neutral\n3,c,positive\n",
    },
    "imdb": {
        f"{split}.csv.gz": gzip.compress(b'id,label,rating,text\nneg/0,0,3,"bad, ""bad"""\npos/1,1,9,good\n')
        for split in ("train", "test")
    },
    "banking77": {
        "train.csv.gz": gzip.compress(
            b'text,category\n"\nTwo\nlines, ""quoted""\n",age_limit\nb,Refund_not_showing_up\n'
        ),
        "test.csv": b"text,category\na,reverted_card_payment?\nb,age_limit\nc,age_limit\n",
    },
    "goemotions": {
        f"{split}.tsv.gz": gzip.compress(b'I am, so\t17,0\ted1\n"quoted\t27\ted2\n') for split in ("train", "test")
    },
    "sick": {
        "SICK.txt": (
            SICK_HEADER + "".join(f"{i}\tA {i}\tB {i}\t4.5\t{JUDGMENTS[i % 3]}\n" for i in range(100))
        ).encode()
    },
}


def write(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in FILES[name].items():
        (folder / file).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_files_are_found_in_their_folder_or_in_the_one_given(tmp_path, name):
    write(tmp_path / "flat", name)
    write(tmp_path / "above" / name, name)
    parts = [task_named(name, data_dir=tmp_path / place).splits for place in ("flat", "above", f"above/{name}")]
    assert parts[0] == parts[1] == parts[2]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_folder_is_refused(tmp_path, name):
    with pytest.raises(
        InvalidData, match=f"--data-dir must hold a folder {name}, but .* does not; give the folder above"
    ):
        task_named(name, data_dir=tmp_path).read()
    (tmp_path / name).mkdir()
    with pytest.raises(InvalidData, match="the data file must exist, but got"):
        task_named(name, data_dir=tmp_path).read()


def test_tweets_without_text_are_dropped(tmp_path):
    write(tmp_path, "tweet_sentiment")
    train, dev = task_named("tweet_sentiment", data_dir=tmp_path).read()
    assert (train.texts, train.labels) == ([" so, sad", "fun"], [0, 2])
    assert dev.labels == [0, 1, 2]


def test_reviews_keep_their_quotes(tmp_path):
    write(tmp_path, "imdb")
    _, dev = task_named("imdb", data_dir=tmp_path).read()
    assert (dev.texts, dev.labels) == (['bad, "bad"', "good"], [0, 1])


def test_questions_keep_their_line_breaks_and_classes_are_in_the_order_of_the_hub(tmp_path):
    write(tmp_path, "banking77")
    task = task_named("banking77", data_dir=tmp_path)
    train, dev = task.read()
    assert (train.texts, train.labels) == (['\nTwo\nlines, "quoted"\n', "b"], [1, 51])
    assert dev.labels == [53, 1, 1]
    assert sorted(task.label_names, key=str.casefold) == list(task.label_names) and len(task.label_names) == 77


def test_comments_have_the_emotions_of_their_numbers(tmp_path):
    write(tmp_path, "goemotions")
    task = task_named("goemotions", data_dir=tmp_path)
    _, dev = task.read()
    assert dev.texts == ["I am, so", '"quoted']
    assert [[task.label_names[i] for i in np.flatnonzero(row)] for row in dev.labels] == [
        ["admiration", "joy"],
        ["neutral"],
    ]
    (tmp_path / "test.tsv.gz").write_bytes(gzip.compress(b"a\t28\ted1\nb\t1\ted2\n"))
    with pytest.raises(InvalidData, match=r"labels in .*test.tsv.gz must be 0, 1, .* and 18 more, but got 28; correct"):
        task.read()


def test_sick_is_cut_by_seed_into_four_fifths_and_one(tmp_path):
    write(tmp_path, "sick")
    train, dev = task_named("sick", data_dir=tmp_path).read()
    assert (len(train), len(dev)) == (80, 20)
    assert set(train.texts) | set(dev.texts) == {f"A {i}" for i in range(100)}
    for part in (train, dev):
        assert part.pairs == [text.replace("A", "B") for text in part.texts]
        assert part.labels == [int(text[2:]) % 3 for text in part.texts]
    assert train.texts != [f"A {i}" for i in range(80)]


@pytest.mark.parametrize(
    ("name", "file"), [("tweet_sentiment", "test.csv"), ("banking77", "test.csv"), ("sick", "SICK.txt")]
)
def test_foreign_labels_are_refused(tmp_path, name, file):
    write(tmp_path, name)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(re.sub(b"neutral|NEUTRAL|age_limit", b"mixed", content))
    with pytest.raises(InvalidData, match=f"labels in .*{file} must be .*, but got mixed; correct or remove"):
        task_named(name, data_dir=tmp_path).read()


HUB = {
    "tweet_sentiment": (
        "mteb/tweet_sentiment_extraction",
        {"text": ["a", "", "b", None, "c"], "label_text": ["neutral", "neutral", "negative", "neutral", "positive"]},
        (["a", "b", "c"], [1, 0, 2], None),
    ),
    "imdb": ("stanfordnlp/imdb", {"text": ["a", "b"], "label": [0, 1]}, (["a", "b"], [0, 1], None)),
    "banking77": ("legacy-datasets/banking77", {"text": ["a", "b"], "label": [0, 76]}, (["a", "b"], [0, 76], None)),
    "goemotions": (
        "google-research-datasets/go_emotions",
        {"text": ["a", "b"], "labels": [[0, 27], [1]]},
        (["a", "b"], [(1.0, *[0.0] * 26, 1.0), (0.0, 1.0, *[0.0] * 26)], None),
    ),
    "sick": (
        "RobZamp/sick",
        {"sentence_A": ["a", "b", "c"], "sentence_B": ["d", "e", "f"], "label": [0, 2, 1]},
        (["a", "b", "c"], [0, 2, 1], ["d", "e", "f"]),
    ),
}


CONFIGURATIONS = {"goemotions": "simplified"}


@pytest.mark.parametrize("name", HUB)
def test_without_a_folder_the_hub_is_read(monkeypatch, name):
    place, columns, expected = HUB[name]
    splits = []

    def load_dataset(path, config, *, split):
        assert (path, config) == (place, CONFIGURATIONS.get(name))
        splits.append(split)
        return datasets.Dataset.from_dict(columns)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for part in task_named(name).read():
        assert (part.texts, part.labels, part.pairs) == expected
    assert splits == ["train", "test"]


ROWS = {
    "glue/cola": (8_551, 1_043),
    "glue/rte": (2_490, 277),
    "glue/mrpc": (3_668, 408),
    "glue/stsb": (5_749, 1_500),
    "glue/wnli": (635, 71),
    "glue/sst2": (67_349, 872),
    "tweet_sentiment": (27_480, 3_534),
    "imdb": (25_000, 25_000),
    "banking77": (10_003, 3_080),
    "goemotions": (43_410, 5_427),
    "sick": (7_941, 1_986),
}


@pytest.mark.data
@pytest.mark.parametrize("name", ROWS)
def test_real_data_have_the_published_size(data_dir, name):
    task = task_named(name, data_dir=data_dir)
    splits = task.splits
    official = len(splits.train) + len(splits.validation)
    assert (official, len(splits.dev)) == ROWS[name]
    assert len(splits.validation) == min(1000, int(official * 0.05))
    if task.label_names is not None:
        for part in (splits.train, splits.dev):
            several = task.kind.several_labels
            assert set(np.nonzero(part.labels)[1] if several else part.labels) == set(range(len(task.label_names)))
    assert splits == task_named(name, data_dir=data_dir).splits


@pytest.mark.data
def test_the_majority_of_wnli_is_as_published(data_dir):
    labels = task_named("glue/wnli", data_dir=data_dir).splits.dev.labels
    assert round(100 * (1 - sum(labels) / len(labels)), 1) == 56.3
