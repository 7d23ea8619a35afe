"""What tells trackers such as TensorBoard of losses and metrics, by transformers' own names."""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import (
    TensorBoardCallback,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from whet.errors import InvalidParameter

__all__ = ["trackers_named"]


def trackers_named(names: Sequence[str], logs: Path | None) -> list[TrainerCallback]:
    """Return the callbacks of these trackers, which write their files to `logs`.

    Raises:
        InvalidParameter: one is not installed.
    """
    known = get_available_reporting_integrations()
    if missing := [name for name in names if name not in known]:
        raise InvalidParameter(
            f"trackers must be installed and known to transformers, but got {', '.join(missing)}; there are "
            f"{', '.join(sorted(known)) or 'none here'}; install one, such as tensorboard, or leave it out"
        )
    found: list[TrainerCallback] = [kind() for kind in get_reporting_integration_callbacks(list(names))]
    for one in found:
        # (it would put its files below the checkpoints, which go)
        if isinstance(one, TensorBoardCallback) and one.logging_dir is None and logs is not None:
            one.logging_dir = str(logs)
    return found
