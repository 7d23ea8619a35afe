"""The public functions that Python has beside the command line, and paths as text."""

import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch

import whet
from folders import classifier, save, write_rows
from helpers import tiny_model
from whet.calibration.resources import Resources
from whet.utils.outputs import claimed


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer):
    """A dense and a compressed model, and data, made with paths that are text."""
    root = tmp_path_factory.mktemp("api")
    save(classifier(), tokenizer, root / "dense")
    write_rows(root / "train.csv", 60)
    write_rows(root / "dev.csv", 20, seed=1)
    recipe = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])
    whet.compress(str(root / "dense"), recipe, str(root / "small"))
    return root


def own_task(root):
    return whet.load_task(train_file=str(root / "train.csv"), dev_file=str(root / "dev.csv"))


def test_load_gives_the_compressed_model(root):
    model = whet.load_model(str(root / "small"))
    assert type(model.bert.encoder.layer[0].intermediate.dense).__name__ == "LowRank"
    assert not model.training
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_load_refuses_a_folder_that_was_altered(root, tmp_path):
    for path in (root / "small").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    with pytest.raises(whet.InvalidArtifact, match="files must match the manifest"):
        whet.load_model(tmp_path)


@pytest.mark.parametrize("name", ["measurements.jsonl", "recipe.yaml", "manifest.json"])
def test_what_cannot_be_recorded_is_noticed_before_a_measurement(root, tmp_path, monkeypatch, name):
    for path in (root / "small").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text("{")
    monkeypatch.setattr(whet.Benchmark, "run", lambda *_: pytest.fail("work had begun"))
    with pytest.raises(whet.InvalidArtifact, match=name):
        whet.measure([root / "dense", tmp_path], own_task(root))


def test_a_student_that_gives_no_answer_is_refused_before_it_is_trained(root, tmp_path, monkeypatch):
    """Such as blocks of linear attention alone, which some families do not run."""

    def broken(*_, **__):
        raise ValueError("no attention layer")

    student = whet.student_from("layer_subset:odd")
    built = student.build(whet.load_model(root / "dense"), Resources())
    built.model.bert.forward = broken
    monkeypatch.setattr(type(student), "build", lambda *_: built)
    settings = whet.TrainingSettings(epochs=1, learning_rate=1e-3)
    with pytest.raises(whet.InvalidParameter, match="and blocks must make a model, but got ValueError: no att"):
        whet.distill(root / "dense", student, own_task(root), tmp_path / "out", settings=settings)


def test_load_reads_a_folder_that_whet_did_not_write(root):
    assert type(whet.load_model(root / "dense")).__name__ == "BertForSequenceClassification"


def test_a_known_task_has_its_name(tmp_path):
    task = whet.load_task("glue/rte", data_dir=str(tmp_path))
    assert task.name == "glue/rte"
    assert task.data_dir == tmp_path


def test_own_files_make_a_task(root):
    task = own_task(root)
    assert task.label_names == ("no", "yes")
    assert len(task.splits.dev) == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of --task and --train-file must be given"),
        ({"name": "imdb", "train_file": "train.csv"}, "one of --task and --train-file must be given"),
        ({"name": "imdb", "dev_file": "dev.csv"}, "must go with --train-file, but got one with --task"),
        ({"name": "imdb", "metric": "f1"}, "must go with --train-file, but got one with --task"),
        (
            {"name": "imdb", "label": "class"},
            "--label and --label-separator must go with --train-file, but got one with",
        ),
        (
            {"name": "imdb", "positive": "positive"},
            "--positive must go with a metric of one class, .* but got accuracy",
        ),
        ({"train_file": "train.csv", "positive": "yes"}, "--positive must go with a metric of one class"),
        ({"name": "agreement", "data_dir": "."}, "agreement is generated, and got .; leave it out"),
        ({"train_file": "train.csv", "data_dir": "."}, "--data-dir must go with --task"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(whet.InvalidParameter, match=message):
        whet.load_task(**given)


def test_a_model_is_compressed_with_texts_alone_and_scored_with_the_users_pairing(root, tmp_path, tokenizer):
    """The head says LABEL_i, and the data say words."""
    nameless = save(tiny_model("bert", 2), tokenizer, tmp_path / "nameless")
    frame = pd.read_csv(root / "train.csv")
    drone = whet.Recipe.from_list([{"method": "drone", "keep": 0.5}])
    whet.compress(nameless, drone, tmp_path / "one", task=whet.load_task(train_file=frame[["text"]]))
    whet.compress(nameless, drone, tmp_path / "two", task=own_task(root))
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    with pytest.raises(whet.InvalidData, match="--label-map no=CLASS,yes=CLASS"):
        whet.measure([nameless], own_task(root))
    quick = whet.Benchmark(metrics=())
    found = []
    for label_map in ({"no": 0, "yes": 1}, {"no": "LABEL_1", "yes": "LABEL_0"}):
        task = whet.load_task(train_file=frame, dev_file=frame, label_map=label_map)
        [trial] = whet.measure([nameless], task, benchmark=quick)
        found.append(trial.get("accuracy").value)
    assert sum(found) == pytest.approx(1) and found[0] != found[1]
    with pytest.raises(whet.InvalidParameter, match="--label-map must go with a model that has classes"):
        whet.finetune(nameless, task, tmp_path / "new", settings=whet.TrainingSettings())


@pytest.mark.parametrize("orient", ["records", "list"])
def test_rows_and_columns_of_python_are_data_too(root, orient):
    """A list of dicts, or a dict of lists."""
    frame = pd.read_csv(root / "train.csv")
    given, wanted = (whet.load_task(train_file=data).splits for data in (frame.to_dict(orient), frame))
    assert [part.digest() for part in given] == [part.digest() for part in wanted]


@pytest.mark.parametrize("given", [[], [1, 2], {}, {"text": ["a"], "label": 1}, [{"text": "a"}, 3]])
def test_what_is_no_table_is_refused(given):
    with pytest.raises(whet.InvalidParameter, match=r"train_file must be .*; give pandas\.DataFrame\(\.\.\.\) of it"):
        whet.load_task(train_file=given)
    with pytest.raises(whet.InvalidData, match="the columns of train_file must be equally long"):
        whet.load_task(train_file={"text": ["a"], "label": [1, 2]})


def test_unknown_names_are_refused_before_files_are_read():
    with pytest.raises(whet.UnknownName, match="did you mean glue/rte"):
        whet.load_task("glue/rt")
    with pytest.raises(whet.UnknownName, match="accuracy"):
        whet.load_task(train_file="train.csv", metric="acuracy")


@pytest.mark.parametrize("name", ["task_named", "task_from_files"])
def test_former_names_work_with_a_warning(name):
    with pytest.warns(FutureWarning, match=f"whet.{name} is now whet.load_task"):
        assert callable(getattr(whet, name))
    assert name not in whet.__all__


def test_measuring_again_adds_rows_and_overwriting_begins_anew(root, tmp_path):
    out, kept = tmp_path / "measured", tmp_path / "measured" / "measurements.jsonl"

    def measured(**options):
        trials = whet.measure(
            [root / "small"], own_task(root), benchmark=whet.Benchmark(metrics=()), out=out, **options
        )
        return [trial.to_json() for trial in trials]

    first, second = measured(), measured()
    assert kept.read_text().splitlines() == first + second
    last = measured(overwrite=True)
    assert kept.read_text().splitlines() == last
    kept.write_text("{")
    with pytest.raises(whet.InvalidArtifact, match=r"line 1 of .*measurements.jsonl"):
        measured()
    (out / "notes.txt").touch()
    with pytest.raises(whet.OutputExists, match="new or empty"):
        measured()


def test_a_model_that_is_replaced_while_it_is_measured_gets_no_row(root, tmp_path):
    small = shutil.copytree(root / "small", tmp_path / "small")
    recipe = whet.Recipe.from_list([{"method": "svd", "keep": 0.25}])
    with pytest.raises(whet.FiguresNotKept, match="small was replaced meanwhile; measure it again"):
        whet.measure(
            [small],
            own_task(root),
            benchmark=whet.Benchmark(metrics=()),
            report=lambda _trials: whet.compress(root / "dense", recipe, small, overwrite=True),
        )
    assert (small / "measurements.jsonl").read_text() == ""


def test_an_output_has_one_writer_and_never_holds_what_is_read(root, tmp_path):
    recipe = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])
    with ThreadPoolExecutor(1) as other, claimed(tmp_path / "out", overwrite=False):
        refused = other.submit(whet.compress, "nowhere", recipe, tmp_path / "out").exception()  # before any work
    assert isinstance(refused, whet.OutputExists) and "must have one writer, but process" in str(refused)
    shutil.copytree(root, tmp_path / "data")
    with pytest.raises(whet.OutputExists, match=r"must be one of its own, but got .*data, which holds .*train\.csv"):
        whet.compress(root / "dense", recipe, tmp_path / "data", task=own_task(tmp_path / "data"), overwrite=True)
    whet.compress(root / "dense", recipe, tmp_path / "out")
    rights = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    (tmp_path / "plain").touch()
    assert rights == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}


def test_every_verb_takes_paths_as_text(root, tmp_path):
    quick = whet.Benchmark(rounds=6, singles=6, timed=8, metrics=("fidelity", "latency", "size"))
    models = [str(root / "dense"), str(root / "small")]
    trials = whet.measure(models, own_task(root), benchmark=quick, out=str(tmp_path / "measured"))
    assert [trial.name for trial in trials] == ["dense", "small"]
    head, *rows = (line.split()[0] for line in repr(trials).splitlines())
    assert head == "model" and [row for row in rows if row in ("dense", "small")] == ["dense", "small"]
    page = whet.write_report([str(tmp_path / "measured")], str(tmp_path / "report"))
    assert page == tmp_path / "report" / "report.html"
    assert whet.inspect(models[1], batch=(1, 4), rounds=1).modules
    with pytest.raises(whet.InvalidModel, match="nowhere"):
        whet.export("nowhere", ["onnxruntime"])


def test_recipes_are_read_from_paths_as_text(tmp_path):
    (tmp_path / "steps.yaml").write_text("- method: svd\n  keep: 0.5\n")
    assert whet.Recipe.read(str(tmp_path / "steps.yaml")).to_list()[0]["method"].endswith("svd")
    assert whet.Recipe.read("drone_retrain") == whet.Recipe.read(whet.methods.recipe.SHIPPED / "drone_retrain.yaml")
