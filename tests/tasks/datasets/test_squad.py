import gzip
import json
import re

import pandas as pd
import pytest

from whet.errors import InvalidData
from whet.evaluation.load_task import load_task
from whet.tasks.base import Task, task_named
from whet.tasks.splits import with_selection_split

CONTEXT = "The Normans came from Denmark, Iceland and Norway."


def answer(text: str, start: int | None = None) -> dict:
    return {"text": text, "answer_start": CONTEXT.find(text) if start is None else start}


def qa(id: str, *answers: dict, question: str = "Where from?", **others) -> dict:
    return {"id": id, "question": question, "answers": list(answers), **others}


def squad(articles: dict[str, list[list[dict]]], context: str = CONTEXT) -> dict:
    """SQuAD's JSON: for each article by its title, the questions of each paragraph."""

    def paragraphs(title: str, parts: list[list[dict]]) -> list[dict]:
        return [{"context": f"{context} {title} {i}", "qas": qas} for i, qas in enumerate(parts)]

    data = [{"title": title, "paragraphs": paragraphs(title, parts)} for title, parts in articles.items()]
    return {"version": "1.1", "data": data}


def write(path, content, *, packed: bool = False):
    text = content if isinstance(content, str) else json.dumps(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def own(path, **options) -> Task:
    return load_task(train_file=path, kind="question_answering", **options)


MANY = {f"article {i}": [[qa(f"{i} {j} {k}", answer("Norway")) for k in range(4)] for j in range(5)] for i in range(12)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("given", [".", "squad"])
def test_official_files_are_read_wherever_the_folder_is_given(tmp_path, packed: bool, given: str):
    write(tmp_path / "squad" / "train-v1.1.json", squad(MANY), packed=packed)
    write(tmp_path / "squad" / "dev-v1.1.json", squad({"x": [[qa("1", answer("Norway"), answer("Iceland"))]]}))
    splits = task_named("squad", data_dir=tmp_path / given).splits
    assert [len(split) for split in splits] == [228, 12, 1]
    assert list(splits.dev.labels) == [(("Norway", 43), ("Iceland", 31))]
    assert splits.dev.pairs == [f"{CONTEXT} x 0"] and splits.dev.texts == ["Where from?"]


def test_no_context_is_in_two_splits(tmp_path):
    write(tmp_path / "train-v1.1.json", squad(MANY))
    write(tmp_path / "dev-v1.1.json", squad({"x": [[qa("1", answer("Norway"))]]}))
    train, validation, _ = task_named("squad", data_dir=tmp_path).splits
    assert not set(train.pairs) & set(validation.pairs)
    assert len(validation) >= 0.05 * (len(train) + len(validation))


def test_without_training_data_articles_are_split_and_that_is_said(tmp_path, capsys):
    write(tmp_path / "squad_v1.1_dev" / "dev-v1.1.json", squad(MANY))
    task = task_named("squad", data_dir=tmp_path)
    titles = [{context.split(". ")[1][:-2] for context in split.pairs} for split in task.splits]
    assert not (titles[0] | titles[1]) & titles[2]
    assert len(titles[0] | titles[1]) == 8 and len(titles[2]) == 4
    assert "8 articles of dev-v1.1.json are for training and 4 for the final measurement" in capsys.readouterr().err


def test_tydi_without_answers_in_its_dev_file_is_measured_on_training_contexts(tmp_path, capsys):
    secret = {"x": [[qa("1", {"text": "", "answer_start": 0})]]}
    write(tmp_path / "tydiqa_en" / "tydiqa.goldp.en.train.json", squad(MANY), packed=True)
    write(tmp_path / "tydiqa_en" / "tydiqa.goldp.en.dev.json", squad(secret), packed=True)
    train, validation, dev = task_named("tydiqa_en", data_dir=tmp_path).splits
    assert len(train) + len(validation) + len(dev) == 240 and len(dev) == 32
    assert not (set(train.pairs) | set(validation.pairs)) & set(dev.pairs)
    assert "have no answers, so that 32 of the 240 training questions are for the final" in capsys.readouterr().err


def test_tydi_with_answers_in_its_dev_file(tmp_path):
    write(tmp_path / "tydiqa_en" / "tydiqa.goldp.en.train.json", squad(MANY), packed=True)
    write(tmp_path / "tydiqa_en" / "tydiqa.goldp.en.dev.json", squad({"x": [[qa("1", answer("Norway"))]]}), packed=True)
    assert [len(split) for split in task_named("tydiqa_en", data_dir=tmp_path).splits] == [228, 12, 1]


FORMS = {
    "objects": [answer("Norway"), answer("Iceland")],
    "lists": {"text": ["Norway", "Iceland"], "answer_start": [43, 31]},
}


@pytest.mark.parametrize("form", FORMS)
def test_one_question_a_line(tmp_path, form: str):
    rows = [
        {"id": 7, "question": "Where?", "context": CONTEXT, "answers": FORMS[form]},
        {"question": "When?", "context": CONTEXT, "answers": []},
        {"question": "Who?", "context": CONTEXT, "is_impossible": True},
    ]
    path = write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, rows)), packed=form == "lists")
    task = own(path)
    examples, nothing = task.read()
    assert list(examples.labels) == [(("Norway", 43), ("Iceland", 31)), (), ()]
    assert len(nothing) == 0 and task.files == (path,)
    assert own(rows).read()[0].digest() == examples.digest()


def test_a_table_as_of_datasets(tmp_path):
    frame = pd.DataFrame({"q": ["Where?"], "c": [CONTEXT], "a": [FORMS["lists"]]})
    frame.to_parquet(tmp_path / "own.parquet")
    for given in (frame, tmp_path / "own.parquet"):
        task = own(given, text="q", text_pair="c", label="a")
        assert list(task.read()[0].labels) == [(("Norway", 43), ("Iceland", 31))]


def test_squad_2_has_questions_without_answers(tmp_path):
    plausible = {"is_impossible": True, "plausible_answers": [answer("Norway")]}
    path = write(tmp_path / "v2.json", squad({"x": [[qa("1", answer("Norway")), qa("2", **plausible)]]}))
    assert list(own(path).read()[0].labels) == [(("Norway", 43),), ()]


def test_text_without_answers_serves_calibration(tmp_path):
    rows = [{"question": f"Where {i}?", "context": CONTEXT} for i in range(3)]
    path = write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, rows)))
    assert len(own(path).unlabeled().splits.train) == 3
    with pytest.raises(InvalidData, match=r"^each question must have answers, an empty list if its context has"):
        own(path).read()


def test_the_metric_that_counts_comes_first():
    assert own([{"question": "x"}]).metrics == ("answer_f1", "exact_match")
    assert own([{"question": "x"}], metric="exact_match").metrics == ("exact_match", "answer_f1")


def test_a_json_file_holds_questions(tmp_path):
    path = write(tmp_path / "own.json", squad({"x": [[qa("1", answer("Norway"))]]}), packed=True)
    assert load_task(dev_file=path).kind is own(path).kind


def test_more_text_is_questions_without_answers(tmp_path):
    path = write(tmp_path / "own.json", squad({"x": [[qa("1", answer("Norway"))]]}))
    more = own(path).more_text(path, text="text")
    assert list(more.labels) == [()] and more.texts == ["Where from?"]
    assert len(own(path).splits.train.joined(more)) == 2


REFUSED = {
    "an answer that is elsewhere": (
        qa("7", answer("Norway", 42)),
        "each answer must lie in its context where answer_start says, but 1 of 2 in",
    ),
    "an answer after the end": (qa("7", answer("Norway", 4000)), "where answer_start says, but 1 of 2 in"),
    "an answer before the start": (qa("7", answer(".", -1)), "where answer_start says, but 1 of 2 in"),
    "no question": (qa("7", question=" "), "each question must have text, but 1 of 2 in"),
    "a question that is no text": (qa("7") | {"question": 3}, "each question must have text as question and context"),
    "half a character": (qa("7", question="\ud83d"), "must hold whole characters, but 1 of 2 in"),
    "a copy": (qa("1", answer("Norway")), "each question must be there once, but"),
    "an answer without start": (qa("7", {"text": "Norway"}), "answers must be a list of objects with text"),
    "answers as text": (qa("7") | {"answers": "Norway"}, "answers must be a list of objects with text and"),
    "an answer that there is not": (
        qa("7", answer("Norway"), is_impossible=True),
        "a question with is_impossible must have no answers, but 7 in",
    ),
    "an empty answer": (qa("7", answer("", 0)), "each question must have answers, an empty list if its context"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_questions_are_refused_in_one_sentence(tmp_path, case: str):
    row, message = REFUSED[case]
    path = write(tmp_path / "own.json", squad({"x": [[qa("1", answer("Norway")), row]]}))
    with pytest.raises(InvalidData, match=re.escape(message)) as raised:
        own(path).read()
    assert "\n" not in str(raised.value) and ";" in str(raised.value)


FILES = {
    "no questions": ("own.json", '{"data": []}', "the data file must hold questions, but"),
    "another format": ("own.json", "[1]", "must have SQuAD's lists data, paragraphs and qas of objects, but"),
    "a list of text": ("own.json", '{"data": ["x"]}', "has no such list data; give SQuAD's format"),
    "no JSON": ("own.json", "{", "must be a readable file of questions, but Expecting property name"),
    "no object in a line": ("own.jsonl", "3", "must be a readable file of questions, but no object in line 1"),
    "another ending": ("own.csv", "question,context", "a file of questions must end in .json, .jsonl, .parquet, but"),
    "no context": ("own.jsonl", '{"question": "x", "answers": []}', "but own has a row with question, answers;"),
    "an empty context": ("own.jsonl", '{"question": "x", "context": "\\t"}', "each question must have a context, but"),
}


@pytest.mark.parametrize("case", FILES)
def test_wrong_files_are_refused_in_one_sentence(tmp_path, monkeypatch, case: str):
    monkeypatch.chdir(tmp_path)
    name, content, message = FILES[case]
    write(tmp_path / name, content)
    with pytest.raises(InvalidData) as raised:
        own(name).read()
    assert message.replace("but own ", f"but {name} ") in str(raised.value)


def test_a_broken_archive_is_refused(tmp_path):
    (tmp_path / "own.json.gz").write_bytes(b"no archive")
    with pytest.raises(InvalidData, match="must be a readable file of questions, but Not a gzipped file"):
        own(tmp_path / "own.json.gz").read()


def test_ids_that_several_questions_share_are_said(tmp_path, capsys):
    rows = [qa("1", answer("Norway")), qa("1", answer("Iceland"), question="Where else?")]
    own(write(tmp_path / "own.json", squad({"x": [rows]}))).splits  # noqa: B018
    assert "1 of 2 questions in" in capsys.readouterr().err


def test_a_search_chooses_by_contexts_that_it_does_not_train_on(tmp_path):
    write(tmp_path / "squad" / "dev-v1.1.json", squad(MANY))
    whole = task_named("squad", data_dir=tmp_path)
    train, chosen, dev = with_selection_split(whole).splits
    assert not set(train.pairs) & set(chosen.pairs)
    assert len(train) + len(chosen) == len(whole.splits.train) + len(whole.splits.validation)
    assert len(chosen) >= 20 and len(train) >= 20 and dev is whole.splits.dev
