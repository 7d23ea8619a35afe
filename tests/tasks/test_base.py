from dataclasses import dataclass
from typing import ClassVar

import datasets
import pytest

from whet.errors import InvalidData, UnknownName
from whet.tasks.base import Task, local_folder, read_hub, task_named, task_names
from whet.tasks.data import Examples
from whet.tasks.own_data import task_from_files


@dataclass(frozen=True, kw_only=True)
class Numbered(Task):
    """Every example's text is its own number."""

    name: str = "numbered"
    size: int = 200
    classes: int = 2
    reads: ClassVar[list[str]] = []

    @property
    def label_names(self):
        return ("even", "odd") if self.classes else None

    @property
    def metrics(self):
        return ("accuracy",)

    def read(self):
        self.reads.append(self.name)
        labels = [i % self.classes if self.classes else 0.5 for i in range(self.size)]
        texts = [str(i) for i in range(self.size)]
        return Examples(texts, labels, texts), Examples(["a", "b"], [0, 1 % max(self.classes, 1)])


class Paired(Numbered):
    group_size: ClassVar[int] = 2


@pytest.mark.parametrize("task", [Numbered, Paired])
@pytest.mark.parametrize("size", [2, 10, 200, 30_000])
def test_train_and_validation_share_nothing_and_lose_nothing(task, size):
    splits = task(size=size).splits
    train, validation = set(splits.train.texts), set(splits.validation.texts)
    assert not train & validation
    assert train | validation == {str(i) for i in range(size)}
    assert len(splits.validation) == min(1000, int(size * 0.05) // task.group_size * task.group_size)


def test_a_folder_may_be_given_as_text(tmp_path):
    assert task_named("glue/mrpc", data_dir=str(tmp_path)).data_dir == tmp_path


def test_labels_and_pairs_go_with_their_texts():
    for part in Numbered().splits[:2]:
        assert [int(text) % 2 for text in part.texts] == part.labels
        assert part.pairs == part.texts


def test_splits_are_always_the_same():
    assert Numbered().splits == Numbered().splits


def test_a_group_stays_in_one_split():
    validation = {int(text) for text in Paired(size=30_000).splits.validation.texts}
    assert {number ^ 1 for number in validation} == validation


def test_data_are_read_once():
    task = Numbered(name="once")
    assert task.splits is task.splits
    assert Numbered.reads.count("once") == 1


def test_one_class_is_refused():
    with pytest.raises(InvalidData, match=r"training data of numbered must hold at least two classes, but .*; give"):
        _ = Numbered(classes=1).splits


def test_scores_need_no_two_values():
    assert len(Numbered(classes=0).splits.train) == 190


def test_every_named_task_can_be_made_and_serves_its_name():
    names = task_names()
    assert {"agreement", "tweet_sentiment", "imdb", "sick", "glue/cola"} <= set(names)
    assert len(set(names)) == len(names)
    for name in names:
        task = task_named(name)
        assert task.name == name
        assert task.metrics
        assert (task.label_names is None) != task.kind.has_classes


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(
        UnknownName, match="the task must be a known name, but got 'glue/colla'; did you mean glue/cola"
    ):
        task_named("glue/colla")


def test_only_tasks_of_their_own_language_bring_a_tokenizer():
    assert {name for name in task_names() if task_named(name).tokenizer() is not None} == {"agreement"}


def test_task_from_files_reads_nothing_yet(tmp_path):
    task = task_from_files(tmp_path / "a.csv", tmp_path / "b.csv", text="text", metric="macro_f1")
    assert (task.name, task.metrics) == ("tabular", ("macro_f1",))
    assert task.name not in task_names()


def test_local_folder_takes_the_folder_or_any_above_it(tmp_path):
    wanted = tmp_path / "glue" / "CoLA"
    wanted.mkdir(parents=True)
    for given in (tmp_path, tmp_path / "glue", wanted):
        assert local_folder(given, "glue/CoLA") == wanted


def test_local_folder_knows_its_files(tmp_path, monkeypatch):
    (tmp_path / "a.csv").touch()
    assert local_folder(tmp_path, "imdb", files=("a.csv",)) == tmp_path
    with pytest.raises(InvalidData):
        local_folder(tmp_path, "imdb", files=("a.csv", "b.csv"))
    (tmp_path / "imdb").mkdir()
    monkeypatch.chdir(tmp_path / "imdb")
    assert local_folder(tmp_path / "imdb" / ".", "imdb").samefile(tmp_path / "imdb")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(
        InvalidData, match=r"--data-dir must be a folder, but got .*nowhere, which does not exist; check the path"
    ):
        local_folder(tmp_path / "nowhere", "glue/CoLA")


def test_an_unreachable_hub_is_refused(monkeypatch):
    def load_dataset(path, name, *, split):
        raise ConnectionError(f"no route for {path}, {name}, {split}")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        InvalidData,
        match=r"a/b must be reachable on the hub, but .*a/b, c, train; check the connection, or give --data-dir",
    ):
        read_hub("a/b", "train", name="c")
