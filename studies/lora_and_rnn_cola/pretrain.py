"""A decoder of GPT-2's shape, of two million weights, trained as a language model on IMDB's reviews.

    python studies/lora_and_rnn_cola/pretrain.py --data-dir ../shared/data

writes the model, with a tokenizer of its own, to `runs/lora_and_rnn_cola/own gpt`, which git ignores, and the losses
beside this file. No pretrained GPT-2 lies at hand without the hub.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch.utils.data import TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed

import whet

HERE = Path(__file__).parent
VOCABULARY, LENGTH, WIDTH, LAYERS, HEADS = 6000, 64, 128, 4, 4
END = "<|endoftext|>"


def main() -> None:
    """Train the tokenizer and the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="local files instead of the hub")
    parser.add_argument("--out", type=Path, default=Path("runs/lora_and_rnn_cola/own gpt"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    splits = whet.load_task("imdb", data_dir=options.data_dir).splits
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(splits.train.texts, vocab_size=VOCABULARY, special_tokens=[END])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, eos_token=END, bos_token=END, unk_token=END)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=2 * LENGTH,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    arguments = TrainingArguments(
        output_dir=str(options.out.with_name("pretraining")),
        max_steps=options.steps,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        warmup_steps=options.steps // 20,
        logging_steps=options.steps // 10,
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    train, held_out = (blocks(texts, tokenizer) for texts in (splits.train.texts, splits.validation.texts))
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=held_out, data_collator=collate)
    trainer.train()
    found = {"parameters": model.num_parameters(), "steps": options.steps, **trainer.evaluate()}
    found["training loss"] = {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}
    (HERE / "pretraining.json").write_text(json.dumps(found, indent=1) + "\n")
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


def blocks(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> TensorDataset:
    """Return the texts as one stream, cut into rows of one length."""
    stream = [token for ids in tokenizer(list(texts))["input_ids"] for token in (*ids, tokenizer.eos_token_id)]
    rows = len(stream) // LENGTH
    return TensorDataset(torch.tensor(stream[: rows * LENGTH]).reshape(rows, LENGTH))


def collate(rows: list[tuple[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return a batch, each of whose tokens is to be predicted from those before."""
    ids = torch.stack([row[0] for row in rows])
    return {"input_ids": ids, "labels": ids}


if __name__ == "__main__":
    main()
