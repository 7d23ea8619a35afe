"""Weight clustering of a small review classifier: accuracy over bytes, before and after an epoch of training.

    python studies/weight_clustering/run.py --data-dir ../shared/data

trains the classifier (an embedding of 10,001 words, the mean over 250 tokens, one output), gives its weights few
values, trains these for one epoch, and measures all on the test reviews, paired with the original; writes
results.json, results.md and a picture beside this file.
"""

import argparse
import copy
import json
import re
import string
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor, nn

import whet
from whet import Measurement
from whet.evaluation import bootstrap, mcnemar
from whet.models import Clustered, CodebookSpec, replace_module, to_storage
from whet.numerics import Coding, Initialization, nearest_centroid, quantize_to_centroids

HERE = Path(__file__).parent
WORDS, LENGTH, FEATURES = 10_000, 250, 16
EPOCHS, BATCH, DROPOUT = 10, 32, 0.2
CLUSTERS = (4, 8, 16, 32, 256)
COURSE = 16
"""What the course took; all variants are tried there."""
RATES = (1e-4, 1e-3, 1e-2)
"""Adam's learning rates that the epoch of training was tried with at 16 values; held-out reviews choose, for all."""
CODINGS: tuple[Coding, ...] = ("fixed", "entropy")
DENSE, LONGER = "dense", "dense, an epoch more"


class Split(NamedTuple):
    """Reviews as numbers."""

    ids: Tensor
    """(reviews, LENGTH) int64; 0 is padding, 1 an unknown word."""
    labels: Tensor
    """(reviews,) float, 1 for a positive one."""


@dataclass(frozen=True)
class Variant:
    """How weights are given few values."""

    name: str
    init: Initialization
    importance: Literal["none", "inputs"] = "none"
    iterated: bool = True
    """Whether values move to the means of their clusters, or stay where they start."""


VARIANTS = (
    Variant("evenly spaced", "linear", iterated=False),
    Variant("linear", "linear"),
    Variant("density", "density"),
    Variant("kmeans++", "kmeans++"),
    Variant("density, by inputs", "density", "inputs"),
)


CURVES = (VARIANTS[2], VARIANTS[4])


class Classifier(nn.Module):
    """The mean of word vectors, padding's included, and one output: 160,033 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS + 1, FEATURES)
        self.output = nn.Linear(FEATURES, 1)
        self.dropout = nn.Dropout(DROPOUT)

    def features(self, ids: Tensor) -> Tensor:
        """Return (reviews, FEATURES) from (reviews, LENGTH)."""
        mean: Tensor = self.dropout(self.dropout(self.embedding(ids)).mean(1))
        return mean

    def forward(self, ids: Tensor) -> Tensor:
        """Return (reviews,) logits from (reviews, LENGTH)."""
        logits: Tensor = self.output(self.features(ids)).squeeze(-1)
        return logits


def main() -> None:
    """Train, cluster, train again, measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--reviews", type=int, help="only so many of each split, for a trial")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    train, held_out, test = read(options.data_dir, options.reviews)
    dense = new_model()
    fit(dense, train, epochs=EPOCHS, rate=1e-3)
    print(f"{DENSE}: held-out accuracy {float(right(dense, held_out).mean()):.4f}", flush=True)
    rows = [row(DENSE, dense, test, None)]
    baseline = right(dense, test)
    masses = inputs(dense, train)
    rate = best_rate(clustered(dense, COURSE, CURVES[0], masses), train, held_out)
    rows.append({**row(LONGER, trained(dense, train, rate), test, baseline), "learning_rate": rate})
    for count in CLUSTERS:
        for variant in VARIANTS if count == COURSE else CURVES:
            model = clustered(dense, count, variant, masses)
            about = {"clusters": count, "variant": variant.name}
            rows.append({**row(f"{count} {variant.name}", model, test, baseline), **about, "trained": False})
            tuned = row(f"{count} {variant.name}, an epoch", trained(model, train, rate), test, baseline)
            rows.append({**tuned, **about, "trained": True, "learning_rate": rate})
            write(rows, options.out)


def read(data_dir: Path | None, reviews: int | None) -> tuple[Split, Split, Split]:
    """Return training, held-out and test reviews; words are the most frequent of the training text."""
    splits = whet.load_task("imdb", data_dir=data_dir).splits
    texts = [[tokens(text) for text in part.texts] for part in (splits.train, splits.validation, splits.dev)]
    counts = Counter(word for review in texts[0] for word in review)
    known = {word: i + 2 for i, (word, _) in enumerate(counts.most_common(WORDS - 2))}
    parts = []
    for part, words in zip((splits.train, splits.validation, splits.dev), texts, strict=True):
        ids = torch.zeros(len(words), LENGTH, dtype=torch.int64)
        for i, review in enumerate(words):
            own = [known.get(word, 1) for word in review[:LENGTH]]
            ids[i, : len(own)] = torch.tensor(own)
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[:reviews]
        parts.append(Split(ids[order], torch.tensor(part.labels, dtype=torch.float32)[order]))
    return parts[0], parts[1], parts[2]


def tokens(text: str) -> list[str]:
    """Return words in small letters, without punctuation and line breaks."""
    plain = text.lower().replace("<br />", " ")
    return re.sub(f"[{re.escape(string.punctuation)}]", "", plain).split()


def new_model() -> Classifier:
    """Return the classifier with random weights, as Keras draws them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier()
        nn.init.uniform_(model.embedding.weight, -0.05, 0.05)
        nn.init.xavier_uniform_(model.output.weight)
        nn.init.zeros_(model.output.bias)
    return model


def batches(split: Split, random: torch.Generator | None = None) -> Iterator[Split]:
    """Yield batches, in random order for training."""
    size = BATCH if random else 512
    order = torch.randperm(len(split.ids), generator=random) if random else torch.arange(len(split.ids))
    for places in order.split(size):
        yield Split(split.ids[places], split.labels[places])


def fit(model: nn.Module, split: Split, *, epochs: int, rate: float) -> None:
    """Train from labels with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.train()
        for _ in range(epochs):
            for batch in batches(split, random):
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(model(batch.ids), batch.labels).backward()
                optimizer.step()
    model.eval()


def trained(model: nn.Module, split: Split, rate: float) -> nn.Module:
    """Return a copy trained for one epoch."""
    copied = copy.deepcopy(model)
    fit(copied, split, epochs=1, rate=rate)
    return copied


def best_rate(model: nn.Module, train: Split, held_out: Split) -> float:
    """Return the learning rate with the least loss on held-out reviews after an epoch."""
    losses = {}
    for rate in RATES:
        tuned = trained(model, train, rate)
        loss = nn.functional.binary_cross_entropy_with_logits(answers(tuned, held_out), held_out.labels)
        losses[rate] = float(loss)
        print(f"learning rate {rate:g}: held-out loss {losses[rate]:.4f}", flush=True)
    return min(losses, key=lambda rate: losses[rate])


def inputs(model: Classifier, split: Split) -> dict[str, Tensor]:
    """Return the mean squares of what the layers read: how often each word, (words, 1), and features, (1, FEATURES)."""
    words = torch.bincount(split.ids.flatten(), minlength=WORDS + 1).double() + 1
    with torch.inference_mode():
        features = torch.cat([model.features(batch.ids) for batch in batches(split)])
    return {"embedding": words[:, None], "output": features.double().square().mean(0)[None]}


def clustered(dense: Classifier, clusters: int, variant: Variant, masses: dict[str, Tensor]) -> nn.Module:
    """Return a copy whose two layers have few values each."""
    model = copy.deepcopy(dense)
    for name in ("embedding", "output"):
        layer = dense.get_submodule(name)
        assert isinstance(layer, nn.Embedding | nn.Linear)
        weight = layer.weight.detach()
        own = masses[name].expand_as(weight).flatten() if variant.importance == "inputs" else None
        if variant.iterated:
            few = quantize_to_centroids(weight.flatten(), clusters, init=variant.init, seed=0, masses=own).view_as(
                weight
            )
        else:
            values = torch.linspace(float(weight.min()), float(weight.max()), clusters)
            few = values[nearest_centroid(weight, values)]
        rows, columns = weight.shape
        if isinstance(layer, nn.Embedding):
            replace_module(model, name, Clustered.of(few, None, CodebookSpec("embedding", rows, columns)))
        else:
            replace_module(
                model, name, Clustered.of(few, layer.bias.detach(), CodebookSpec("linear", rows, columns, bias=True))
            )
    return model.eval()


def answers(model: nn.Module, split: Split) -> Tensor:
    """Return (reviews,) logits."""
    with torch.inference_mode():
        return torch.cat([model(batch.ids) for batch in batches(split)])


def right(model: nn.Module, split: Split) -> np.ndarray[Any, Any]:
    """Return (reviews,) whether each answer is right."""
    return ((answers(model, split) > 0) == split.labels.bool()).numpy()


def row(name: str, model: nn.Module, test: Split, baseline: np.ndarray[Any, Any] | None) -> dict[str, Any]:
    """Return what is measured of one model."""
    own = right(model, test)
    estimate = bootstrap(lambda drawn: float(own[drawn].mean()), len(own), seed=0)
    accuracy = Measurement(
        metric="accuracy",
        unit="",
        **estimate._asdict(),
        n=len(own),
        better="higher",
        conditions={"split": "test reviews"},
        versus=None if baseline is None else mcnemar(own, baseline),
    )
    sizes = {coding: stored_bytes(model, coding) for coding in CODINGS}
    print(f"{name}: {accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f}), bytes {sizes}", flush=True)
    counts = [Measurement.count(f"file, {coding}", size, "bytes").to_dict() for coding, size in sizes.items()]
    return {"name": name, "measurements": [accuracy.to_dict(), *counts]}


def stored_bytes(model: nn.Module, coding: Coding) -> int:
    """Return the size of the file, where assignments are stored in this way."""
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if isinstance(layer, Clustered):
            layer.spec = CodebookSpec(**{**layer.structure(), "coding": coding})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(to_storage(copied).state_dict(), path)
        return path.stat().st_size


def write(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write all results in three forms."""
    (folder / "results.json").write_text(json.dumps(list(rows), indent=1) + "\n")
    (folder / "results.md").write_text(table(rows))
    picture(rows).savefig(folder / "results.png", dpi=130, metadata={"Software": "whet"})


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| model | test accuracy (95 % interval) | against dense (95 % interval, p) | bytes, fixed | bytes, entropy |"
        " times smaller |",
        "|---|---|---|---|---|---|",
    ]
    first = rows[0]["measurements"][1]["value"]
    for one in rows:
        accuracy, fixed, entropy = one["measurements"]
        versus = accuracy["versus"]
        against = (
            ""
            if versus is None
            else f"{versus['value']:+.4f} ({versus['low']:+.4f} to {versus['high']:+.4f}, {chance(versus['p_value'])})"
        )
        lines.append(
            f"| {one['name']} | {accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f}) | {against} |"
            f" {fixed['value']:,} | {entropy['value']:,} | {first / entropy['value']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def chance(p_value: float) -> str:
    """Return a p-value, which can be too small for a float."""
    return f"{p_value:.2g}" if p_value > 0 else "< 1e-300"


def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """Return accuracy over bytes, before and after the epoch of training."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    panels: Any = figure.subplots(1, 2, sharey=True)
    dense = rows[0]["measurements"][0]
    for panel, after in zip(panels, (False, True), strict=True):
        panel.axhspan(dense["low"], dense["high"], color="0.9", label="dense, 95 % interval")
        for variant in VARIANTS:
            own = [one for one in rows if one.get("variant") == variant.name and one["trained"] is after]
            scores = [one["measurements"][0] for one in own]
            arms = [[one["value"] - one["low"] for one in scores], [one["high"] - one["value"] for one in scores]]
            places = [one["measurements"][2]["value"] / 1e3 for one in own]
            values = [one["value"] for one in scores]
            panel.errorbar(places, values, yerr=arms, marker="o", capsize=3, label=variant.name)
        panel.set(title="an epoch of training" if after else "as clustered", xlabel="file, kB", xscale="log")
        panel.set_xticks([20, 40, 80, 160], ["20", "40", "80", "160"], minor=False)
        panel.minorticks_off()
    panels[0].set_ylabel("accuracy on test reviews")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
