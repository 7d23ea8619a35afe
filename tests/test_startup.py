"""What importing whet costs: nothing heavy comes with it, and compressed models load all the same."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import whet
from folders import classifier, save
from whet.cli.app import main

HEAVY = (
    "transformers.trainer",
    "sklearn",
    "scipy",
    "pandas",
    "datasets",
    "matplotlib",
    "accelerate",
    "peft",
    "onnxruntime",
    "openvino",
)


def python(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compressed_folder(tmp_path_factory, tokenizer):
    """A model with low-rank layers."""
    folder = tmp_path_factory.mktemp("startup")
    save(classifier(), tokenizer, folder / "dense")
    recipe = whet.Recipe.from_list([{"method": "svd", "keep": 0.5}])
    whet.compress(folder / "dense", recipe, folder / "small")
    return folder / "small"


def imported_after(code: str, names: tuple[str, ...]) -> set[str]:
    """Which of these modules a fresh interpreter holds after some code."""
    printed = python(f"{code}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))")
    return set(printed.splitlines()[-1].split())


def test_importing_whet_imports_nothing_heavy():
    assert imported_after("import whet", (*HEAVY, "torch", "transformers")) == set()


def after_command(*words: str) -> str:
    """Code that runs a command line, as far as its exit."""
    return (
        "import contextlib, io, sys\nfrom whet.cli.app import main\n"
        f"sys.argv = ['whet', *{words!r}]\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:\n"
        "    main()\nassert printed.getvalue()"
    )


@pytest.mark.parametrize("words", [["--help"], ["compress", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_transformers(words):
    assert imported_after(after_command(*words), (*HEAVY, "torch", "transformers")) == set()


def test_the_list_of_methods_needs_torch_alone():
    assert imported_after(after_command("methods"), (*HEAVY, "torch", "transformers")) == {"torch"}


def test_a_heavy_module_is_seen():
    """The check itself works."""
    assert imported_after("import pandas", HEAVY) >= {"pandas"}


def test_public_names_alone_are_shown_whatever_was_imported():
    """Python puts modules that were imported beside them; completion in a notebook would show these."""
    code = "import whet, whet.models.load, whet.errors; shown = dir(whet); whet.Goal; print(shown == dir(whet), *shown)"
    assert python(code).split() == ["True", *whet.__all__]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No whet attribute squeeze"):
        _ = whet.squeeze


def test_a_public_name_is_imported_once():
    assert whet.Goal is whet.Goal
    assert "Goal" in vars(whet)


@pytest.mark.parametrize("before", ["", "import transformers.models.auto, transformers.quantizers.auto"])
def test_a_compressed_model_loads_right_after_the_import(compressed_folder, before):
    printed = python(
        f"{before}\nimport sys, whet\nfrom transformers import AutoModelForSequenceClassification as Auto\n"
        "print(type(Auto.from_pretrained(sys.argv[1]).bert.encoder.layer[0].intermediate.dense).__name__)",
        compressed_folder,
    )
    assert printed.split() == ["LowRank"]


def test_nothing_is_reported_home(tmp_path, monkeypatch):
    """ONNX Runtime writes an id for its telemetry there, unless it is told not to before its import."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    python("import whet, onnxruntime")
    assert not list(tmp_path.rglob("*"))


def test_the_version_is_known():
    assert python("import whet; print(whet.__version__)").split() == [version("whet")]


@pytest.mark.parametrize("before", ["", "import transformers; transformers.PreTrainedModel"])
@pytest.mark.parametrize(
    ("auto", "config", "model"),
    [
        ("AutoModelForCausalLM", "LstmConfig", "LstmForCausalLM"),
        ("AutoModelForSequenceClassification", "RecurrentConfig", "RecurrentForSequenceClassification"),
        ("AutoModelForSequenceClassification", "ShallowConfig", "ShallowForSequenceClassification"),
    ],
)
def test_own_models_load_right_after_the_import(tmp_path, before, auto, config, model):
    sizes = {"vocab_size": 11, "hidden_size": 4}
    getattr(whet, model)(getattr(whet, config)(**sizes)).save_pretrained(tmp_path)
    printed = python(
        f"{before}\nimport sys, whet\nfrom transformers import {auto}\n"
        f"print(type({auto}.from_pretrained(sys.argv[1])).__name__)",
        tmp_path,
    )
    assert printed.split() == [model]


def test_own_configurations_are_known_right_after_the_import(tmp_path):
    whet.LstmConfig(vocab_size=11, hidden_size=4).save_pretrained(tmp_path)
    printed = python(
        "import sys, whet\nfrom transformers import AutoConfig\n"
        "print(type(AutoConfig.from_pretrained(sys.argv[1])).__name__)",
        tmp_path,
    )
    assert printed.split() == ["LstmConfig"]


def test_nothing_stays_behind_once_transformers_knows():
    printed = python(
        "import sys, whet\nfrom transformers import PreTrainedModel\n"
        "print(*(type(finder).__module__ for finder in sys.meta_path if hasattr(finder, '__dict__')))"
    )
    assert "whet" not in printed


def test_the_source_of_a_hooked_module_can_be_read():
    python(
        "import inspect, whet\nfrom transformers.quantizers import auto\n"
        "assert 'AUTO_QUANTIZER_MAPPING' in inspect.getsource(auto)"
    )


def test_the_command_says_what_installs_it_where_only_the_runner_is(monkeypatch, capsys):
    monkeypatch.setattr("whet.cli.app.find_spec", lambda name: None if name in ("torch", "transformers") else object())
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "needs torch, transformers, which" in said and "pip install 'whet[compress]'" in said
    )
