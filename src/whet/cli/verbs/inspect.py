"""`inspect` and `methods`: the verbs that change nothing."""

from typing import Annotated

from annotated_types import Interval

from whet.cli.console import print_inspection, print_json, print_methods
from whet.cli.options import Json, ThreadOptions, Untimed
from whet.utils.ranges import BatchSize


def inspect(
    model: str,
    /,
    *,
    kind: str | None = None,
    batch_size: BatchSize = 32,
    length: Annotated[int, Interval(ge=1, le=1_000_000)] = 64,
    untimed: Untimed = False,
    machine: ThreadOptions = ThreadOptions(),
    as_json: Json = False,
) -> None:
    """Show where a model's parameters and time are, and which methods can help on this machine.

    Args:
        model: Folder or hub name.
        kind: What the model answers, e.g. embedding, where its folder does not tell.
        batch_size: Examples in the batch that is timed.
        length: Tokens in each example.
    """
    from whet import api

    machine.use_cpu()
    inspection = api.inspect(model, kind=kind, batch=(batch_size, length), untimed=untimed)
    if as_json:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection)


def methods(*names: str, as_json: Json = False) -> None:
    """List methods with their parameters, ranges and sources.

    Args:
        names: Methods to show; all if not given.
    """
    from whet.methods.base import all_methods, method_named

    chosen = {method.name(): method for method in map(method_named, names)} or all_methods()
    if as_json:
        print_json({name: method.about() for name, method in chosen.items()})
    else:
        print_methods(chosen)
