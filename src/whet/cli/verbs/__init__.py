"""The verbs of the command line: those of `whet.api`, with progress bars, and tables or JSON.

A verb imports what it needs when it runs, so that `whet --help` answers without torch.
"""

import importlib.metadata

from cyclopts import App, Parameter

from whet.cli.shell import GLOBAL_OPTIONS
from whet.cli.verbs.cascade import cascade
from whet.cli.verbs.compare import compare
from whet.cli.verbs.completion import completion_of
from whet.cli.verbs.compress import compress
from whet.cli.verbs.demo import demo
from whet.cli.verbs.export import export
from whet.cli.verbs.inspect import inspect, methods
from whet.cli.verbs.measure import measure
from whet.cli.verbs.report import report
from whet.cli.verbs.search import search
from whet.cli.verbs.training import distill, finetune

__all__ = ["app"]

app = App(
    name="whet",
    help="Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.",
    help_format="plaintext",  # names with colons and stars mean what they say
    help_epilogue="Every command takes, before or after its name: "
    + "; ".join(f"{name}, {meaning}" for name, meaning in GLOBAL_OPTIONS.items())
    + ".",
    version=lambda: f"whet {importlib.metadata.version('whet')}",
    version_flags=("--version",),
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)

for verb in (finetune, distill, compress, cascade, compare, measure, report, export, search, inspect, methods, demo):
    app.command(verb)
app.command(completion_of(app), name="--install-completion")
