"""The matrix of families and actions: a tiny random model of each family, and one action on it by the public verbs.

    python tests/families.py --families modernbert,deberta-v2 --actions svd,kfac  # a part; prints every cell
    python tests/families.py                                                      # all that docs/families.csv lacks
    python tests/families.py --again                                              # all cells

A cell is OK, REFUSED with the sentence of the error, TRACEBACK with what a library raised, or TIMEOUT. Cells are kept
in docs/families.csv one by one, so that a run can be stopped and continued. A family runs in a process of its
own, which is ended where a cell takes too long. A new family adds a line to FAMILIES.
"""

import argparse
import csv
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

import whet
from exports import exported_once
from helpers import VOCAB, made_awkward, word_tokenizer
from whet.errors import WhetError
from whet.evaluation import timing

TABLE = Path(__file__).resolve().parents[1] / "docs" / "families.csv"
SECONDS = 300.0
"""Longest time of a cell."""
LABELS = ("no", "maybe", "yes")
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: i for i, name in enumerate(LABELS)},
}
"""Of every family, under the names that most configurations know; those of `FAMILIES` come on top."""
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MODULE = {**GROUPED, **{name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}}
T5 = {"num_decoder_layers": 3, "d_ff": 64, "d_kv": 8}
BART = {
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 3),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
}
FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bart": BART,
    "bert": {},
    "big_bird": {},
    "biogpt": {},
    "bloom": {},
    "camembert": {},
    "canine": {"num_hash_buckets": 64},
    "cohere_compass_text": {
        **GROUPED,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "convbert": {"embedding_size": 32},
    "ctrl": {"dff": 64},
    "data2vec-text": {},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 16,
    },
    "distilbert": {"hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "esm_rotary": {"model_type": "esm", "position_embedding_type": "rotary", "mask_token_id": 4},
    "eurobert": {"num_key_value_heads": 2},
    "falcon": {"ffn_hidden_size": 64},
    "flaubert": {},
    "fnet": {},
    "funnel": {"num_hidden_layers": None, "block_sizes": [1, 1, 1], "d_head": 8, "d_inner": 64},
    "gemma": GROUPED,
    "gemma2": GROUPED,
    "gemma3_text": GROUPED,
    "glm4": GROUPED,
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 4},
    "gpt_neox": {},
    "gpt_oss": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {"rotary_dim": 4},
    "gte": {},
    "ibert": {},
    "jina_embeddings_v3": {},
    "layoutlm": {"max_2d_position_embeddings": 32},
    "lilt": {"hidden_size": 48, "max_2d_position_embeddings": 32},
    "llama": {"num_key_value_heads": 2},
    "longformer": {"attention_window": [4, 4, 4]},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "mbart": BART,
    "megatron-bert": {},
    "ministral3": GROUPED,
    "mistral": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "modernbert-decoder": {
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "cls_token_id": None,
        "sep_token_id": None,
    },
    "mpnet": {},
    "mpt": {},
    "mra": {},
    "mt5": T5,
    "nomic_bert": {},
    "nystromformer": {},
    "olmo2": {"num_key_value_heads": 2},
    "olmo3": {"num_key_value_heads": 2},
    "openai-gpt": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2, "vocab_size": VOCAB + 1},  # its tokenizer adds a token
    "qwen3": GROUPED,
    "qwen3_moe": EXPERTS,
    "qwen3_next": {
        **EXPERTS,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "shared_expert_intermediate_size": 16,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roc_bert": {
        "pronunciation_vocab_size": VOCAB,
        "pronunciation_embed_dim": 8,
        "shape_vocab_size": VOCAB,
        "shape_embed_dim": 8,
    },
    "roformer": {"embedding_size": 16},
    "smollm3": {"num_key_value_heads": 2},
    "squeezebert": {"embedding_size": 32},
    "stablelm": {"num_key_value_heads": 2},
    "starcoder2": {"num_key_value_heads": 2},
    "t5": T5,
    "t5gemma": {"encoder": MODULE | {"num_hidden_layers": 3}, "decoder": MODULE | {"num_hidden_layers": 3}},
    "ultrabert": {},
    "umt5": T5,
    "xlm": {},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {"max_position_embeddings": None, "d_head": 8, "d_inner": 64},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {},
}
"""The configuration of each family beside `SIZES`; None drops an entry. Families are named as their model_type."""

Status = Literal["OK", "REFUSED", "TRACEBACK", "TIMEOUT"]


class Cell(NamedTuple):
    """What an action on a family gave."""

    family: str
    action: str
    status: Status
    said: str = ""
    """The message of the error."""


def tiny(family: str) -> PreTrainedModel:
    """Return a random classifier of a family in eval mode, whose biases are not zero."""
    sizes = {name: value for name, value in {**SIZES, **FAMILIES[family]}.items() if value is not None}
    config = AutoConfig.for_model(sizes.pop("model_type", family), **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        return made_awkward(model)  # type: ignore[return-value]


class Place:
    """A folder with a model of a family, and a task."""

    def __init__(self, root: Path, family: str) -> None:
        self.root, self.model = root, root / "model"
        tiny(family).save_pretrained(self.model)
        word_tokenizer().save_pretrained(self.model)
        self.task = whet.load_task(**_written(root), kind="classification")

    def compress(self, *steps: Mapping[str, Any]) -> Path:
        """Return the folder of what a recipe makes."""
        out, calibration = self.root / "small", whet.Calibration(examples=32, max_length=64)
        recipe = whet.Recipe.from_list([dict(step) for step in steps])
        whet.compress(self.model, recipe, out, task=self.task, calibration=calibration, overwrite=True)
        return out

    def distill(self) -> None:
        """Distil a student of every other block."""
        settings = whet.TrainingSettings(epochs=1, max_length=64)
        student = whet.student_from("layer_subset:odd")
        whet.distill(self.model, student, self.task, self.root / "student", settings=settings, overwrite=True)

    def measure(self) -> None:
        """Measure the model, also on texts longer than it can read."""
        benchmark = whet.Benchmark(batch_size=8, rounds=6, singles=2, timed=4, metrics=("fidelity", "latency"))
        whet.measure([self.model], self.task, benchmark=benchmark)

    def export(self, runtime: str, precision: str) -> None:
        """Export a copy of the model."""
        out = self.root / "exported"
        whet.export(self.model, [runtime], precisions=[precision], task=self.task, out=out, overwrite=True)

    def inspect(self) -> None:
        """Inspect the model."""
        whet.inspect(self.model, batch=(2, 8), rounds=1)


def _written(root: Path) -> dict[str, Path]:
    random = np.random.default_rng(0)
    for name, count in (("train", 48), ("dev", 16)):
        lengths = [2 + i % 8 if i % 8 else 60 for i in range(count)]  # 60 words are more than a model can read
        texts = [" ".join(f"w{word}" for word in random.integers(5, VOCAB, size=length)) for length in lengths]
        rows = [json.dumps({"text": text, "label": LABELS[i % 3]}) for i, text in enumerate(texts)]
        (root / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return {"train_file": root / "train.jsonl", "dev_file": root / "dev.jsonl"}


def _method(name: str, **parameters: Any) -> Callable[[Place], object]:
    return lambda place: place.compress({"method": name, **parameters})


def _export(runtime: str, precision: str) -> Callable[[Place], object]:
    return lambda place: place.export(runtime, precision)


ACTIONS: dict[str, Callable[[Place], object]] = {
    "inspect": Place.inspect,
    "reload": Place.compress,
    "full_rank": _method("svd", keep=1.0),
    **{name: _method(name, keep=0.5) for name in ("svd", "drone", "kfac", "attention", "shared_qkv")},
    **{name: _method(name, keep=0.5) for name in ("neurons", "structure")},
    "heads": _method("heads", keep=0.6),  # one of two groups, beside a router
    "neurons_mild": _method("neurons", keep=0.97),
    "first_token": _method("first_token"),
    "embedding": _method("embedding", keep=0.5),
    "vocabulary": _method("vocabulary", least_count=2),
    "magnitude": _method("magnitude", sparsity=0.5),
    "kmeans": _method("kmeans", n_clusters=16),
    "half": _method("half"),
    "weight_only": _method("weight_only", bits=8),
    "dynamic_int8": _method("dynamic_int8"),
    "distill": Place.distill,
    "measure": Place.measure,
    **{
        f"export_{precision}_{runtime}": _export(runtime, precision)
        for runtime in ("onnxruntime", "openvino")
        for precision in ("fp32", "int8")
    },
}
"""What is tried on every family. All that writes a model reloads it too, and compares its answers."""


def tried(place: Place, family: str, action: str) -> Cell:
    """Return what an action gives."""
    try:
        ACTIONS[action](place)
    except WhetError as error:
        return Cell(family, action, "REFUSED", _said(place, str(error)))
    except Exception as error:  # whatever a library raises
        return Cell(family, action, "TRACEBACK", _said(place, f"{type(error).__name__}: {error}"))
    return Cell(family, action, "OK")


def _said(place: Place, text: str) -> str:
    return " ".join(text.replace(f"{place.root}/", "").split())[:300]


def cells(family: str, actions: Iterable[str], *, seconds: float = SECONDS) -> Iterator[Cell]:
    """Yield the cell of each action, in processes that end where an action takes longer or ends them."""
    waiting = list(actions)
    while waiting:
        mine, other = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_try_all, args=(other, family, waiting))
        process.start()
        other.close()
        try:
            while waiting and (cell := _next(mine, process, family, waiting[0], seconds)).status != "TIMEOUT":
                yield cell
                waiting.pop(0)
                if not process.is_alive() and not mine.poll():
                    break
            else:
                if waiting:
                    yield cell
                    waiting.pop(0)
        finally:
            process.kill()
            process.join()


def _next(pipe: Connection, process: BaseProcess, family: str, action: str, seconds: float) -> Cell:
    if not pipe.poll(seconds):
        return Cell(family, action, "TIMEOUT", f"more than {seconds:g} seconds")
    try:
        return Cell(*pipe.recv())
    except EOFError:
        process.join()
        return Cell(family, action, "TRACEBACK", f"the process ended with {process.exitcode}")


def _try_all(pipe: Connection, family: str, actions: Sequence[str]) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        timing.LOCK = Path(root) / "lock"  # figures do not matter here
        torch.onnx.export = exported_once(torch.onnx.export, Path(root))
        place = Place(Path(root), family)
        for action in actions:
            pipe.send(tuple(tried(place, family, action)))


def read(path: Path = TABLE) -> dict[tuple[str, str], Cell]:
    """Return the cells of a table by family and action; empty if there is none."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["family"], row["action"]): Cell(**row) for row in csv.DictReader(file)}  # type: ignore[arg-type]


def write(known: Mapping[tuple[str, str], Cell], path: Path = TABLE) -> None:
    """Write a table, in the order of FAMILIES and ACTIONS."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Cell._fields)
        rows.writerows(known[key] for key in ((f, a) for f in FAMILIES for a in ACTIONS) if key in known)


def main() -> None:
    """Try what the arguments name."""
    parser = argparse.ArgumentParser(description="Try actions on tiny models of families.")
    parser.add_argument("--families", type=lambda text: text.split(","), default=[*FAMILIES])
    parser.add_argument("--actions", type=lambda text: text.split(","), default=[*ACTIONS])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="longest time of a cell")
    parser.add_argument("--again", action="store_true", help="also cells that the table has")
    parser.add_argument("--table", type=Path, default=TABLE)
    given = parser.parse_args()
    known = read(given.table)
    for family in given.families:
        wanted = [action for action in given.actions if given.again or (family, action) not in known]
        for cell in cells(family, wanted, seconds=given.seconds):
            print(*cell, sep="\t", flush=True)
            known[cell.family, cell.action] = cell
            write(known, given.table)


if __name__ == "__main__":
    main()
