"""How a command line ends: exit codes, streams that take nothing, signals, and errors that nobody expected."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from folders import classifier, save
from whet.cli import app, shell, verbs
from whet.cli.signals import Stops, stopped_by_signals
from whet.utils.progress import say
from whet.utils.streams import console, printable, safe_streams

FULL = Path("/dev/full")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; return its exit code and what it said on the error stream."""

    def ran(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["whet", *words])
        with pytest.raises(SystemExit) as end:
            app.main()
        return end.value.code, capsys.readouterr().err

    return ran


def failing(error: BaseException):
    def fail(*words, **others):
        raise error

    return fail


# what nobody expected


def test_an_unexpected_error_is_one_sentence_and_a_file(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(verbs, "app", failing(KeyError("a\nb")))
    code, err = run("measure", "x")
    [file] = tmp_path.iterdir()
    assert code == 70 and err.count("\n") == 1
    assert re.search(r"^InternalError: whet measure must .* KeyError: 'a\\nb' in .*, which is a fault of whet's; ", err)
    assert str(file) in err and "--debug" in err
    text = file.read_text()
    assert "Traceback (most recent call last)" in text and "['measure', 'x']" in text
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("words", [["report", ""], ["measure", "", "--out", "x"], ["compress", "m", "--out", ""], [""]])
def test_an_empty_word_is_no_folder(run, words):
    """Paths are made of words, and that of an empty one is the working folder."""
    before = words[words.index("") - 1] if words[0] else "whet"
    assert run(*words)[0] == 2 and f"an empty value after {before}" in run(*words)[1]


@pytest.mark.parametrize("words", [["inspect", "m", "--length", "[" * 50_000], ["inspect", "m", "b" * 50_000]])
def test_long_words_do_not_fill_the_screen(run, words):
    code, err = run(*words)
    assert code == 2 and err.startswith("UsageError: ") and len(err) < 1000


def test_a_working_folder_that_is_gone_is_told(run, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, err = run("compress", "m", "--method", "svd", "--keep", ".5", "--out", "o")
    assert code == 2 and err.startswith("InvalidParameter: the working folder must exist")


@pytest.mark.parametrize("words", [["--debug", "measure"], ["measure", "--debug", "x"], ["measure", "x", "--debug"]])
def test_debug_shows_the_traceback(run, monkeypatch, tmp_path, words):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = []
    monkeypatch.setattr(verbs, "app", lambda words, **rest: given.append(words) or failing(KeyError("x"))())
    code, err = run(*words)
    assert code == 70 and err.startswith("Traceback") and "--debug" not in given[0]


def test_debug_after_two_dashes_is_a_word(monkeypatch):
    words, options = shell.GlobalOptions.of(["measure", "--quiet", "--", "--debug"])
    assert words == ["measure", "--", "--debug"] and not options.debug and options.verbosity == "quiet"


def test_a_traceback_that_cannot_be_kept_is_no_second_error(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    monkeypatch.setattr(verbs, "app", failing(KeyError("x")))
    code, err = run("measure")
    assert code == 70 and err.count("\n") == 1 and "run it again with --debug" in err


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "OutOfMemory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9"), "OutOfMemory"),
        (OSError(28, "No space left on device"), "OutputNotWritten"),
    ],
)
def test_a_machine_that_is_too_small_is_no_fault_of_ours(run, monkeypatch, error, kind):
    monkeypatch.setattr(verbs, "app", failing(error))
    code, err = run("compress")
    assert code == 2 and err.startswith(f"{kind}: ") and err.count("\n") == 1


# streams


class Piped:
    """A text stream into a pipe, whose reader may leave."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.stream = os.fdopen(writer, "w", encoding="ascii", errors="strict")


def test_a_reader_that_leaves_is_noted_and_nothing_raises(monkeypatch):
    pipe = Piped()
    monkeypatch.setattr(sys, "stdout", pipe.stream)
    with safe_streams() as failure:
        print("first", flush=True)
        os.close(pipe.reader)
        print("x" * 10**6, flush=True)
        print("more", flush=True)
    assert failure.reader_left
    assert sys.stdout is pipe.stream
    pipe.stream.close()


def test_a_full_disk_is_noted(monkeypatch):
    with FULL.open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with safe_streams() as failure:
            print("x" * 10**5)
        assert failure.error is not None and "No space left" in str(failure.error) and not failure.reader_left


def test_signs_that_an_encoding_lacks_are_replaced(monkeypatch):
    pipe = Piped()
    monkeypatch.setattr(sys, "stdout", pipe.stream)
    monkeypatch.setattr(sys, "stderr", pipe.stream)
    with safe_streams():
        print("10 → 5 ×", "\udcff", flush=True)
        say("é")
    pipe.stream.close()
    with os.fdopen(pipe.reader) as reader:
        assert reader.read() == "10 ? 5 ? ?\n?\n"


def test_streams_that_are_closed_are_replaced(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with safe_streams() as failure:
        print("lost")
        say("lost")
        assert not sys.stderr.isatty()
    assert failure.error is None


def test_text_from_files_cannot_steer_a_terminal():
    assert printable("a\x1b[2Jb\x9b\r\u202ec\td\n") == "a�[2Jb���c\td\n"
    terminal = console(width=80)
    terminal.file = io.StringIO()
    terminal.print("layer_subset:top:3 \x1b]0;x\x07", markup=False)
    assert terminal.file.getvalue() == "layer_subset:top:3 �]0;x�\n"


SHELL = 'cd "$1"; exec "$0" -m whet'


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--version >&- 2>&- <&-", 0),
        ("nonsense >&- 2>&-", 2),
        ("--help > /dev/full 2> /dev/full", 74),
        ("--help | true; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_streams_of_a_process(tmp_path, words, code):
    script = SHELL.replace("exec ", "") if "|" in words else SHELL
    command = ["bash", "-c", f"{script} {words}", sys.executable, tmp_path]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == code
    assert not list(tmp_path.iterdir())


def test_a_result_is_saved_though_nothing_can_be_printed(run, monkeypatch, tmp_path, tokenizer):
    save(classifier(), tokenizer, tmp_path / "model")
    with FULL.open("w", encoding="ascii") as full:
        monkeypatch.setattr(sys, "stdout", full)
        out = tmp_path / "new"
        code, err = run("compress", str(tmp_path / "model"), "--method", "svd", "--keep", "0.5", "--out", str(out))
    assert code == 74 and (out / "manifest.json").is_file()
    assert "OutputNotWritten: standard output must take what is printed, but [Errno 28]" in err


# signals


WRONG = """
import json, sys
from whet.cli.app import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["whet", *words]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, words
    assert "torch" not in sys.modules, words
"""
"""A program of wrong command lines."""
INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from whet.cli.app import main
class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == NAME:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
main()
"""


@pytest.fixture
def ctrl_c():
    """SIGINT arrives, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("name", "said"), [("torch", ""), ("rich", "stopped; nothing half-written was left\n")])
def test_ctrl_c_during_imports(ctrl_c, name, said):
    """While the packages are looked for, and while they are imported."""
    program = INTERRUPTED.replace("NAME", repr(name))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, said)


def test_what_is_wrong_is_said_before_what_is_slow_to_import(place):
    """In a new process, which has nothing imported yet."""
    rows = ["--train-file", "train.csv", "--out", "new"]
    wrong = [
        ["finetune", "base", *rows, "--epochs", "-1"],
        ["finetune", "none", *rows],
        ["finetune", "base", "--train-file", "none.csv", "--out", "new"],
        ["distill", "model", *rows, "--student", "layer_subset:odd", "--batch-size", "0"],
        ["distill", "model", "--train-file", "none.csv", "--out", "new", "--student", "layer_subset:odd"],
        ["compress", "none", *rows, "--method", "svd"],
        ["compress", "model", "--train-file", "none.csv", "--out", "new", "--method", "svd"],
        ["compare", "model", "--train-file", "none.csv", "--out", "new", "--recipe", "course"],
        ["search", "none", *rows],
        ["search", "model", *rows, "--time", "7x"],
        ["search", "model", "--train-file", "none.csv", "--out", "new"],
        ["measure", "model", "--dev-file", "none.csv"],
        ["report", "none"],
        ["finetune", "base", *rows, "--learning-rate", "0"],
        ["distill", "model", *rows, "--student", "layer_subset:odd", "--alpha", "2"],
        ["compress", "model", *rows, "--keep", "1.5"],
        ["compress", "model", *rows, "--keep", "0.5", "--calibration", "0"],
        ["compare", "model", *rows, "--recipe", "course", "--rounds", "0"],
        ["search", "model", *rows, "--max-drop", "0"],
        ["search", "model", *rows, "--batch-size", "0"],
        ["measure", "model", *rows, "--batch-tokens", "0"],
        ["measure", "model", *rows, "--dimensions", "-1"],
        ["export", "model", "--to", "onnx", "--opset", "9"],
        ["export", "model", "--to", "onnx", "--max-kl", "0"],
        ["inspect", "model", "--length", "0"],
        ["report", "model", "--max-drop", "101"],
        ["demo", "--threads", "0"],
    ]
    done = subprocess.run([sys.executable, "-c", WRONG, json.dumps(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(wrong)
    assert "pydantic" not in done.stderr  # whose bounds are told in our words
    assert not (place / "new").exists()


def test_what_the_parent_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_signal_lets_the_run_clean_up_and_the_third_ends_it(monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", sys.exit)
    stops, cleaned = Stops(), False
    with pytest.raises((SystemExit, KeyboardInterrupt)) as end:
        try:
            stops.handle(signal.SIGTERM, None)
        finally:
            stops.handle(signal.SIGINT, None)
            cleaned = True
            stops.handle(signal.SIGINT, None)
    assert cleaned and end.type is SystemExit and end.value.code == 143
    assert capsys.readouterr().err == "cleaning up; a third time ends at once and may leave drafts behind\n"


def test_a_stop_that_a_library_swallowed_is_raised_again():
    with stopped_by_signals() as stops, pytest.raises(KeyboardInterrupt):
        with suppress(KeyboardInterrupt):
            stops.handle(signal.SIGINT, None)
        stops.handle(signal.SIGINT, None)


def test_a_stop_within_an_import_waits_for_it(ctrl_c, tmp_path, monkeypatch):
    """C++ that imports a module may have no way to pass an exception on."""
    (tmp_path / "slow_module.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    imported = []
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        import slow_module

        imported.append(slow_module.whole)
        signal.pause()
    assert imported


def test_a_stop_that_a_library_turned_into_another_error_is_a_stop(run, monkeypatch):
    def turn(words, **others):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("no numpy") from error

    def leave(self):
        sys.exit(self.exit_code)

    monkeypatch.setattr(verbs, "app", turn)
    monkeypatch.setattr(Stops, "leave", leave)
    assert run("measure")[0] == 143
