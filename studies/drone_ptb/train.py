"""Train the LSTM language model of the study on the Penn Treebank.

    python studies/drone_ptb/train.py --data ../shared/data/ptb --threads 2

writes the model with its tokenizer and learning curve to runs/drone_ptb/dense. A killed run goes on where it stopped
when it is called again; its curve so far lies in runs/drone_ptb/.dense.training.
"""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from whet import Epoch, LstmConfig, LstmForCausalLM
from whet.evaluation import save_model
from whet.report import curve_csv
from whet.utils import check_output, progress_bar, write_text

sys.path.insert(0, str(Path(__file__).parents[1]))

from drone_ptb.bptt import BpttSettings, train_recurrent
from drone_ptb.stream import read_stream, word_tokenizer

EPOCHS = 10


def main() -> None:
    """Train, save, and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of ptb.train.txt, ptb.valid.txt, ptb.test.txt")
    parser.add_argument("--out", type=Path, default=Path("runs/drone_ptb/dense"))
    parser.add_argument("--hidden", type=int, default=300, help="width of the hidden state and of the embeddings")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, help="read only so many of the training text, for a trial")
    for setting in dataclasses.fields(BpttSettings):
        name = f"--{setting.name.replace('_', '-')}"
        default = EPOCHS if setting.name == "epochs" else setting.default
        parser.add_argument(name, type=type(setting.default), default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = BpttSettings(**{one.name: getattr(options, one.name) for one in dataclasses.fields(BpttSettings)})
    check_output(options.out, overwrite=False, inputs=(options.data,))
    train(options, settings)


def train(options: argparse.Namespace, settings: BpttSettings) -> None:
    """Train one model and save it."""
    tokenizer = word_tokenizer(options.data / "ptb.train.txt")
    texts = [read_stream(options.data / f"ptb.{split}.txt", tokenizer) for split in ("train", "valid")]
    text, validation = (ids[: options.tokens] for ids in texts)
    torch.manual_seed(settings.seed)
    config = LstmConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        dropout=options.dropout,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LstmForCausalLM(config)
    scratch = options.out.resolve().with_name(f".{options.out.name}.training")

    def show(curve: Sequence[Epoch]) -> None:
        last = curve[-1]
        print(f"epoch {last.epoch}: training loss {last.training_loss:.3f}, perplexity {last.validation_metric:.1f}")
        write_text(scratch / "curve.csv", curve_csv(curve).decode())
        picture(curve).savefig(scratch / "curve.png", dpi=130, metadata={"Software": "whet"})

    steps = settings.epochs * -(-(len(text) // settings.columns - 1) // settings.steps)
    with progress_bar("training", steps) as shown:
        curve = train_recurrent(
            model,
            text,
            validation,
            settings=settings,
            scratch=scratch,
            on_step=lambda epoch, step: shown.reach(epoch * steps / settings.epochs + step),
            on_epoch=show,
        )
    show(curve)
    extras = {name: (scratch / name).read_bytes() for name in ("curve.csv", "curve.png")}
    save_model(model, tokenizer, options.out, recipe=[], origin="Penn Treebank", seed=settings.seed, extras=extras)
    shutil.rmtree(scratch)


def picture(curve: Sequence[Epoch]) -> Figure:
    """Return perplexity over epochs; training is measured with dropout, and so can lie above validation."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    epochs = [row.epoch for row in curve]
    training = torch.tensor([row.training_loss for row in curve]).exp()
    axes.plot(epochs, training, marker="o", label="training, with dropout")
    axes.plot(epochs, [row.validation_metric for row in curve], marker="s", label="validation")
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
