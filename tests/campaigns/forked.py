"""Run command lines of whet in forked children of a process that has imported everything: a call takes no import.

A child has its own folder, streams, environment and folder for temporary files, and can be sent a signal at a moment:
after some seconds, or at a file operation. Audit events of Python tell the file operations.
"""

import atexit
import contextlib
import importlib
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = ["CRASHED", "FileOperations", "Job", "Outcome", "finish", "import_everything", "run", "start"]

CRASHED = 99
"""Exit code of a child that an exception left; whet's own last line of defence should let none through."""
PRINTED = ("stdout", "stderr")
"""Files in a job's folder of streams."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"}
"""Audit events that change files, besides opening one to write it."""
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def import_everything(lock: Path) -> None:
    """Import all that the verbs need, so that no child has to.

    Args:
        lock: the file under which children take times, for nobody, so that they wait for nobody who takes some.
    """
    torch.set_num_threads(1)
    for name in (
        "datasets", "matplotlib.pyplot", "onnxruntime", "onnxscript", "openvino", "pandas", "peft", "scipy.stats",
        "torch.onnx", "transformers.integrations", "transformers.models.bert.modeling_bert",
        "whet.api.compressing", "whet.api.loading", "whet.api.measuring", "whet.api.training", "whet.cli.app",
        "whet.evaluation.benchmark", "whet.report.write", "whet.runtimes.export", "whet.searching.search",
    ):  # fmt: skip
        importlib.import_module(name)
    from whet.evaluation import timing
    from whet.evaluation.metrics.memory import Memory

    # it starts processes, which import everything once more
    Memory.measure = lambda self, subjects: [[] for _ in subjects]
    timing.LOCK = lock


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command line, and where it runs."""

    argv: Sequence[str]
    """Words after `whet`."""
    folder: Path
    """The working folder, which exists."""
    streams: Path
    """A folder for what is printed and for temporary files; created if it does not exist."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limit: float = 120
    """Seconds after which the child is killed, and counts as hanging."""
    begin: Callable[[], None] = lambda: None
    """Called in the child before anything of whet's."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended."""

    code: int
    """Its exit code; negative for the signal that ended it."""
    stdout: str
    stderr: str
    seconds: float
    hanging: bool

    @property
    def has_traceback(self) -> bool:
        """Whether somebody would have seen a traceback."""
        return self.code in (1, 70, CRASHED) or "Traceback (most recent call last)" in self.stdout + self.stderr

    @property
    def sentence(self) -> str:
        """The last line of what went wrong."""
        lines = [line for line in re.split(r"[\r\n]+", self.stderr) if line.strip()]
        return lines[-1] if lines else ""


def run(job: Job) -> Outcome:
    """Run a job to its end."""
    return finish(start(job), job)


def start(job: Job) -> int:
    """Fork a child that runs a job; return its process id."""
    (job.streams / "tmp").mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    for name in PRINTED:  # a child may be killed before it prints
        (job.streams / name).touch()
    # until the child is inside `try`, a signal would have it do what its parent does next
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        code = CRASHED
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            code = _child(job)
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return pid


def finish(pid: int, job: Job, *, send: tuple[int, float] | None = None) -> Outcome:
    """Wait for a child.

    Args:
        pid: its process id, from `start`.
        job: what it runs.
        send: a signal, and the seconds after which it is sent.
    """
    begun = time.monotonic()
    hanging = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        spent = time.monotonic() - begun
        if ended:
            break
        if send is not None and spent >= send[1]:
            os.kill(pid, send[0])
            send = None
        if spent > job.limit and not hanging:
            hanging = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    told = [(job.streams / name).read_text(encoding="utf-8", errors="replace") for name in PRINTED]
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code=code, stdout=told[0], stderr=told[1], seconds=spent, hanging=hanging)


@dataclass
class FileOperations:
    """The file operations of a process below a folder: counted, and interrupted by a signal at one of them."""

    root: Path
    """Only operations on paths below it count."""
    stop_at: int | None = None
    """The number of the operation that a signal comes before; none if None."""
    signal: int = signal.SIGKILL
    log: Path | None = None
    """File that gets a line for each operation: its name and the name of the file."""
    count: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def watch(self) -> None:
        """Watch this process until it ends."""
        root = os.fspath(self.root.resolve())
        log = None if self.log is None else os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def heard(event: str, args: tuple[Any, ...]) -> None:
            path = _changed(event, args)
            if path is None or not _below(path, root):
                return
            if log is not None:
                os.write(log, f"{event} {Path(path).name}\n".encode(errors="replace"))
            if self.count == self.stop_at:
                os.kill(os.getpid(), self.signal)
            self.count += 1

        sys.addaudithook(heard)


def _changed(event: str, args: tuple[Any, ...]) -> str | None:
    """The path that an event changes, if it does."""
    if event == "open":
        path, _mode, flags = args
        if not isinstance(flags, int) or not flags & _WRITE:
            return None
    elif event in CHANGES:
        path = args[0]
    else:
        return None
    with contextlib.suppress(TypeError, ValueError):
        return os.fsdecode(path)
    return None  # a descriptor, whose opening was counted


def _below(path: str, root: str) -> bool:
    absolute = os.path.abspath(path)  # noqa: PTH100  # links stay: they are what is changed
    return absolute.startswith(root + os.sep)


def _child(job: Job) -> int:
    atexit._clear()  # what the parent cleans up at its end is not the child's
    os.chdir(job.folder)
    streams = [os.open(job.streams / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in PRINTED]
    nothing = os.open(os.devnull, os.O_RDONLY)
    for stream, target in ((nothing, 0), (streams[0], 1), (streams[1], 2)):
        os.dup2(stream, target)
    # a parent's test runner may have put other streams in their place
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(i), "rw"[i > 0], encoding="utf-8") for i in range(3))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update({"TMPDIR": os.fspath(job.streams / "tmp"), **job.environment})
    tempfile.tempdir = None
    sys.argv = ["whet", *job.argv]
    from whet.cli import app

    try:
        job.begin()
        app.main()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        return CRASHED
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
    return 0
