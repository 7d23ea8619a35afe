"""Models exported to ONNX once a test session: torch takes seconds for each, and many tests export the same model."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def exported_once(export: Callable[..., Any], folder: Path) -> Callable[..., None]:
    """Return `torch.onnx.export` that copies the files of a model which it has exported before, in any process.

    Args:
        export: torch's own.
        folder: keeps the files of this session.
    """

    def export_or_copy(model: nn.Module, args: tuple[Tensor, ...], path: Path, **options: Any) -> None:
        known = folder / f"{_key(model, args, options)}.onnx"
        if not known.exists():
            export(model, args, path, **options)
            draft = folder / f"{os.getpid()}.draft"
            shutil.copy(path, draft)
            if (weights := path.with_name(f"{path.name}.data")).exists():
                shutil.copy(weights, f"{known}.data")
            draft.rename(known)
        else:
            shutil.copy(known, path)
            if Path(f"{known}.data").exists():
                shutil.copy(f"{known}.data", f"{path}.data")

    return export_or_copy


def _key(model: nn.Module, args: tuple[Tensor, ...], options: dict[str, Any]) -> str:
    """Return a digest of all that an export is made from: modules with their plain attributes, tensors, options."""
    digest = hashlib.sha256(repr((sorted(options.items(), key=str), [tuple(one.shape) for one in args])).encode())
    for part in _parts(model):
        digest.update(part)
    return digest.hexdigest()


def _parts(model: nn.Module) -> Iterator[bytes]:
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | list)}
        config = getattr(module, "config", None)
        own = {} if config is None else {**config.to_dict(), "attention": config._attn_implementation}
        for about in (plain, own):
            for where in ("name_or_path", "_name_or_path"):
                about.pop(where, None)
        yield repr((name, type(module), sorted(plain.items()), sorted(own.items()))).encode()
    for name, value in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        yield repr((name, value.dtype, tuple(value.shape))).encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
