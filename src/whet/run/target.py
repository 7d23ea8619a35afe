"""Which of a model's forms runs: what was asked for, what the folder was made for, or what was measured fastest."""

from importlib.util import find_spec

from whet.errors import InvalidParameter
from whet.run.folder import ModelFolder
from whet.utils.commands import export_command
from whet.utils.inputs import one_line
from whet.utils.precision import BF16, FP32, INT8, PYTORCH, STATIC_INT8

__all__ = ["ONNX_RUNTIME", "OPENVINO", "PACKAGES", "choose_target", "missing_packages", "target_name"]

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
_NEEDED = {ONNX_RUNTIME: ("onnxruntime",), OPENVINO: ("openvino",), PYTORCH: ("torch", "transformers")}
"""The packages of each runtime, by which of them are installed, in the order in which they are tried."""
PACKAGES = {ONNX_RUNTIME: "'whet[run]'", OPENVINO: "'whet[run]' openvino", PYTORCH: "'whet[compress]'"}
"""What pip installs for each runtime."""
_FORMATS = {"onnx": ONNX_RUNTIME}
"""Other names of runtimes."""

_PRECISIONS = (FP32, BF16, INT8, STATIC_INT8)

Target = tuple[str, str]


def choose_target(
    folder: ModelFolder, runtime: str | None = None, precision: str | None = None, *, exported: bool = False
) -> Target:
    """Return the runtime and precision to run a model in.

    In this order: what is asked for; the target that the folder was made for; the fastest for single texts among those
    that were measured; fp32; any other export. The last three count as far as their packages are installed.

    Args:
        folder: what the folder holds.
        runtime: what is asked for; None for any.
        precision: the same.
        exported: whether only exports count, and not the weights.

    Raises:
        InvalidParameter: the folder has no such form, or its package is not installed.
    """
    forms = [one for one in _forms(folder) if not exported or one[0] != PYTORCH]
    asked = None if runtime is None else _FORMATS.get(runtime, runtime)
    if asked is not None and asked not in _NEEDED:
        raise InvalidParameter(
            f"the runtime must be one of {', '.join(_NEEDED)}, but got runtime={one_line(asked, 40)!r}; correct it"
        )
    fitting = [one for one in forms if asked in (None, one[0]) and precision in (None, one[1])]
    if not fitting and asked == PYTORCH:
        raise InvalidParameter(
            f"a model must have its weights, in fp32, to run in pytorch, but got {folder.path}, which has "
            f"{', '.join(map(target_name, forms)) or 'none'}; give the model that it was made from"
        )
    if not fitting:
        wanted = " ".join(word for word in (asked, precision) if word)
        known = precision if precision in _PRECISIONS else FP32
        command = export_command(folder.path, asked or ONNX_RUNTIME, known)
        raise InvalidParameter(
            f"the model must be exported for what it is to run in, but {folder.path} has no {wanted or 'form'}; it has "
            f"{', '.join(map(target_name, forms)) or 'none that can run'}; "
            f"{'deploy the model that it was made from anew' if folder.is_deployment else command}"
        )
    made_for = folder.target
    if made_for in fitting and asked is None and precision is None:
        fitting = [made_for]
    installed = [one for one in fitting if _is_installed(one[0])]
    if not installed:
        names = ", ".join(dict.fromkeys(package for one in fitting for package in missing_packages(one[0])))
        raise InvalidParameter(
            f"{' or '.join(map(target_name, fitting))} must be installed to run {folder.path}, but got no {names}; "
            f"pip install {PACKAGES[fitting[0][0]]}"
        )
    return _fastest(folder, installed) or installed[0]


def target_name(target: Target) -> str:
    """Return how people call a target, such as `onnxruntime int8`."""
    return target[0] if target[0] == PYTORCH else " ".join(target)


def _forms(folder: ModelFolder) -> list[Target]:
    """Everything that a folder can run in, by what it holds: fp32 first, in the order of `_NEEDED`."""
    forms = [one for one in folder.exports if one[0] in _NEEDED]
    if folder.has_weights:
        forms.append((PYTORCH, FP32))
    order = list(_NEEDED)
    return sorted(forms, key=lambda one: (one[1] != FP32, order.index(one[0])))


def _fastest(folder: ModelFolder, targets: list[Target]) -> Target | None:
    """The target with the lowest latency in its last measurement; None if fewer than all that differ were measured."""
    latencies = {row[:2]: row.latency for row in folder.recorded if row.latency is not None}
    measured = [one for one in targets if one in latencies]
    return min(measured, key=lambda one: latencies[one], default=None)


def _is_installed(runtime: str) -> bool:
    return not missing_packages(runtime)


def missing_packages(runtime: str) -> list[str]:
    """Return the packages that a runtime needs and that are not installed."""
    return [package for package in _NEEDED[runtime] if find_spec(package) is None]
