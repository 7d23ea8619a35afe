"""Why centring DRONE's moments lowers the reconstruction error and raises the KL.

    python studies/first_light/centring.py runs/glue/glue_mrpc/dense --task glue/mrpc --data-dir ../shared/data

factorises MiniLM-L6 at 0.6 kept with the moments of one kind of layer centred at a time (the bias makes up for the
mean), measures KL to the original on held-out training data, and then follows the kind that does the harm: the relative
error of the values at single tokens against that of their mixture under the layer's own attention. It writes
centring.json beside this file.
"""

import argparse
import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

import whet
from whet import Batches, Calibration
from whet.calibration import collect_moments, prepare_resources
from whet.models import (
    Architecture,
    LowRank,
    copy_sharing_parameters,
    dense_bias,
    dense_weight,
    load_tokenizer,
    predict,
    replace_module,
)
from whet.numerics import Moments, break_even, factors_at_rank, output_pca
from whet.tasks import encode

HERE = Path(__file__).parent
KEEP = 0.6
KINDS = (
    "none",
    "*query",
    "*key",
    "*value",
    "*attention.output.dense",
    "*intermediate.dense",
    "*.[0-9].output.dense",
    "*",
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    model, tokenizer = whet.load_model(options.model), load_tokenizer(options.model)
    task = whet.load_task(options.task, data_dir=options.data_dir)
    batches = prepare_resources(model, tokenizer, task, Calibration(examples=128), seed=0, device="cpu").calibration
    assert batches is not None
    held_out = encode(task.splits.validation, tokenizer, max_length=128, batch_size=16)
    moments = collect_moments(model, batches, Architecture.of(model).linears)
    original = predict(model, held_out, name="the original")
    found = {
        "task": options.task,
        "keep": KEEP,
        "held-out training examples": len(held_out.labels),
        "KL by kind of layer centred": {
            kind: float(original.divergences(predict(drone(model, moments, kind), held_out, name=kind)).mean())
            for kind in KINDS
        },
        "values, relative squared error": [
            {
                "layer": name,
                **{kind: value_errors(model, name, moments[name], held_out, kind) for kind in ("uncentred", "centred")},
            }
            for name in moments
            if name.endswith("value")
        ],
    }
    (HERE / "centring.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def low_rank(layer: nn.Module, moments: Moments, *, centred: bool) -> LowRank:
    """Return the layer's DRONE factors at KEEP, with centred moments and the bias moved, or without."""
    weight = dense_weight(layer)
    found = (
        output_pca(weight, moments.second - moments.mean.outer(moments.mean), moments.mean)
        if centred
        else output_pca(weight, moments.second)
    )
    u, v, shift = factors_at_rank(weight, found, int(KEEP * break_even(weight)))
    bias = dense_bias(layer)
    return LowRank.of(u, v, bias if shift is None or bias is None else bias + shift)


def drone(model: nn.Module, moments: Mapping[str, Moments], centred: str) -> nn.Module:
    """Return the model with every layer factorised; those that the wildcard matches with centred moments."""
    copied = copy_sharing_parameters(model)
    for name, found in moments.items():
        replace_module(copied, name, low_rank(model.get_submodule(name), found, centred=fnmatch(name, centred)))
    return copied


def value_errors(model: nn.Module, name: str, moments: Moments, batches: Batches, kind: str) -> dict[str, float]:
    """Return the error of one value projection, all before it being the original: by token, and mixed by attention."""
    values, mixed = name, name.replace("attention.self.value", "attention.output.dense")
    copied = copy_sharing_parameters(model)
    replace_module(copied, name, low_rank(model.get_submodule(name), moments, centred=kind == "centred"))
    found = {}
    for what, layer in (("token", values), ("mixed", mixed)):
        pairs = [
            (seen(model, layer, batch, output=what == "token"), seen(copied, layer, batch, output=what == "token"))
            for batch in batches
        ]
        error = sum(float((a - b).square().sum()) for a, b in pairs)
        centre = torch.cat([a for a, _ in pairs]).mean(0)
        found[what] = error / sum(float((a - centre).square().sum()) for a, _ in pairs)
    return found


def seen(model: nn.Module, name: str, batch: Mapping[str, Tensor], *, output: bool) -> Tensor:
    """Return (tokens, width) what a layer puts out, or what it is given, at the real tokens."""
    caught: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _module, inputs, out: caught.append(out if output else inputs[0])
    )
    with torch.inference_mode():
        model(**batch)
    handle.remove()
    return caught[0][batch["attention_mask"].bool()]


if __name__ == "__main__":
    main()
