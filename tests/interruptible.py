"""A process that runs command lines in forked children, which stop at a chosen function so as to be killed there.

Jobs come as JSON lines on standard input: `argv`, `folder`, and `pause`, the dotted name of a function with the moment
(`before` or `after` it). The process answers with the child's id, and with its exit status once it has ended. A child
that reaches the moment writes the file `ready` into its folder and sleeps.
"""

import functools
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from whet.cli import app


def stop_at(name: str, moment: str, ready: Path) -> None:
    """Replace a function by one that stops before or after its work."""
    module, _, path = name.partition(":")
    *owners, last = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    original = getattr(owner, last)

    @functools.wraps(original)
    def stopping(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs) if moment == "after" else None
        ready.touch()
        time.sleep(60)
        return result

    setattr(owner, last, stopping)


def child(job: dict[str, Any]) -> int:
    """Run one command line; return its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["folder"])
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    stop_at(*job["pause"], ready=Path("ready").resolve())
    sys.argv = ["whet", *job["argv"]]
    try:
        app.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 98


def main() -> None:
    """Serve jobs until standard input ends."""
    torch.set_num_threads(1)
    print("waiting", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
