"""What holds for every verb: JSON is one document, help says what is meant, hints repeat the user's words."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from cyclopts import UnknownOptionError

from measured import trial
from whet.cli import shell
from whet.cli.verbs import app, completion

OWN = ["--train-file", "train.csv", "--dev-file", "dev.csv"]
VERBS = [name for name in app if not name.startswith("-")]
COMMANDS = {
    "finetune": ["base", "--out", "new", *OWN, "--epochs", "1"],
    "distill": ["model", "--student", "layer_subset:odd", "--out", "new", *OWN, "--epochs", "1"],
    "compress": ["model", "--method", "svd", "--keep", "0.5", "--out", "new"],
    "export": ["small", "--to", "onnxruntime"],
    "measure": ["model", "small", *OWN, "--rounds", "6"],
    "inspect": ["model", "--batch-size", "2", "--length", "4"],
    "methods": ["svd"],
}
"""A quick command of each verb whose own tests do not read its JSON."""
SLOW = {"demo", "search", "report"}
"""Verbs whose JSON tests of their own read."""


@pytest.mark.parametrize("verb", COMMANDS)
def test_json_is_one_document_and_nothing_else(place, run, no_memory, verb):
    done = run(verb, *COMMANDS[verb], "--json", "--verbose")
    assert done.code == 0, done.err
    json.loads(done.out)


def test_json_of_a_demo(run, monkeypatch):
    from whet.cli import demo

    def quick(out, *, seed, say):
        say("a line")
        return [trial("dense")]

    monkeypatch.setattr(demo, "run_demo", quick)
    [dense] = json.loads(run("demo", "--json").out)
    assert dense["name"] == "dense"
    assert run("demo").out == "a line\n"


def test_every_verb_with_results_has_json():
    for name in VERBS:
        words = {word for argument in app[name].assemble_argument_collection() for word in argument.names}
        assert "--json" in words, name


@pytest.mark.parametrize("verb", VERBS)
def test_an_error_leaves_standard_output_empty(place, run, verb):
    done = run(verb, "--json", "--nonsense")
    assert done.code == 2 and done.out == "" and done.err.startswith("UsageError: ")


# global options


@pytest.mark.parametrize("option", shell.GLOBAL_OPTIONS)
@pytest.mark.parametrize("before", [True, False])
def test_every_command_takes_the_global_options(run, option, before):
    words = ["methods", "svd"]
    done = run(*([option, *words] if before else [*words, option]))
    assert (done.code, done.err) == (0, "") and "factorization.svd" in done.out


def test_no_verb_has_an_option_of_that_name():
    """It would never see it."""
    for name in VERBS:
        words = {word for argument in app[name].assemble_argument_collection() for word in argument.names}
        assert not words & set(shell.GLOBAL_OPTIONS)


def test_quiet_prints_results_alone(place, run):
    words = ["compress", "model", "--method", "svd", "--keep", "0.5"]
    done = run(*words, "--out", "new", "--quiet")
    assert (done.code, done.err) == (0, "") and re.fullmatch(r"saved to new.*\n", done.out)
    done = run("--verbose", *words, "--out", "again")
    assert "layers changed" in done.out and "measure it:" in done.out
    assert "loading model" in done.err and "- wrote again\n" in done.err


def test_wide_shows_all_columns(run):
    narrow, wide = (run("methods", "structure", *more).out for more in ([], ["--wide"]))
    assert max(map(len, wide.splitlines())) > 100
    table = [line for line in narrow.splitlines() if "  " in line or "─" in line]
    assert table and max(map(len, table)) <= 80


# help


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_says_what_is_meant_in_80_columns(run, verb):
    done = run(*filter(None, [verb]), "--help")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert all(ord(sign) < 0x2600 for sign in done.out), "a name between colons became a picture"
    squeezed = "".join(re.sub(r"[│╭╰╮╯─]", "", done.out).split())
    assert all(f"{name}," in squeezed for name in shell.GLOBAL_OPTIONS)
    if verb:
        for argument in app[verb].assemble_argument_collection():
            text = argument.parameter.help or ""
            assert "".join(text.split()) in squeezed, f"{argument.names[0]} reads otherwise"


# hints


HINTS = {name: COMMANDS[name] for name in ("finetune", "distill")} | {
    "compress": [*COMMANDS["compress"], *OWN, "--label-map", "no=0,yes=1"],
    "export": ["model", "--to", "onnxruntime", "--out", "new", *OWN, "--label-map", "no=0,yes=1"],
}


@pytest.mark.parametrize("verb", HINTS)
def test_a_hint_is_a_command_with_the_users_own_options(place, run, verb):
    done = run(verb, *HINTS[verb])
    assert done.code == 0, done.err
    [hint] = re.findall(r": whet (.*)$", done.out, re.MULTILINE)
    words = shlex.split(hint)
    app.parse_args(words, exit_on_error=False, print_error=False)
    own = [word for word in HINTS[verb] if word in (*OWN, "--label-map", "no=0,yes=1")]
    assert [word for word in words if word in own] == own
    assert "--task" not in words


def test_a_hint_that_is_no_command_is_seen():
    with pytest.raises(UnknownOptionError):
        app.parse_args(["measure", "model", "--tsk", "x"], exit_on_error=False, print_error=False)


# completion


@pytest.mark.parametrize("kind", completion.SHELLS)
def test_completion_is_installed_and_knows_every_verb(run, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(variable, raising=False)
    done = run("--install-completion", "--shell", kind)
    assert (done.code, done.err) == (0, "")
    script = Path(done.out.splitlines()[0].removeprefix("saved to "))
    assert tmp_path in script.parents
    text = script.read_text(encoding="utf-8")
    assert (all(name in text for name in VERBS) and "--train-file" in text) or kind == "fish"
    started = {"bash": ".bashrc", "zsh": ".zshrc"}.get(kind)
    assert started is None or str(script.parent) in (tmp_path / started).read_text()


def test_bash_completes(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("--install-completion", "--shell", "bash").code == 0
    asked = '. "$HOME/.bashrc"; COMP_WORDS=(whet fine); COMP_CWORD=1; _whet; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["finetune"]


def test_a_shell_that_is_not_known_is_refused(run, monkeypatch, tmp_path):
    monkeypatch.setattr("cyclopts.completion.detect.detect_shell", lambda: "powershell")
    done = run("--install-completion")
    assert done.code == 2 and done.err.startswith(
        "InvalidParameter: the shell must be bash or zsh or fish, but got pow"
    )


def test_a_home_that_cannot_be_written_is_told(run, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nowhere")
    done = run("--install-completion", "--shell", "bash")
    assert done.code == 2 and done.err.startswith("OutputNotWritten: the home folder must be one that can be written")
