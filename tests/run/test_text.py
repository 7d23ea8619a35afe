"""Tokens of the runner are those of transformers, whose tokenizer they are compared with."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Tokenizer, LlamaTokenizer, RobertaTokenizer

from folders import edit_json
from helpers import word_tokenizer
from whet.errors import InvalidArtifact, InvalidParameter
from whet.models.load import load_tokenizer
from whet.run import text as text_module
from whet.run.folder import ModelFolder
from whet.run.text import TokenEncoder, padded_batch
from whet.tasks.data import Examples
from whet.tasks.encoding import pad

TEXTS = [
    "w5 w6 w7",
    "",
    "a longer sentence, w8 w9 w10 w11 w12 w13 w14 w15",
    "Ünïcode 北京 😀",
    " spaces  and\nlines ",
    "[SEP] </s>",
]
PAIRS = ["w6", "the other text is the longer one here, w8 w9 w10 w11", "", "w7 w8", "x", "[PAD]"]


def bpe() -> dict[str, object]:
    """Bytes and a few merges of them."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, *PAIRS] * 5, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    return {"vocab": tokenizer.get_vocab(), "merges": merges}


def left_cut() -> object:
    tokenizer = word_tokenizer()
    tokenizer.truncation_side = "left"
    tokenizer.init_kwargs["truncation_side"] = "left"
    return tokenizer


MADE = {
    "words with token types": word_tokenizer,
    "words cut on the left": left_cut,
    "gpt2, which has no padding token": lambda: GPT2Tokenizer(**bpe()),
    "roberta": lambda: RobertaTokenizer(**bpe()),
    "llama, which pads on the left": lambda: LlamaTokenizer(**bpe()),
}


@pytest.fixture(params=MADE)
def folder(request, tmp_path) -> Path:
    MADE[request.param]().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("max_length", [9, 40])
def test_inputs_are_those_of_transformers(folder, pairs, max_length):
    tokenizer = load_tokenizer(folder)
    examples = Examples(TEXTS, [0] * len(TEXTS), pairs)
    rows = [
        {key: values for key, values in row.items() if key != "labels"}
        for row in examples.encode(tokenizer, max_length=max_length).rows
    ]
    wanted = pad(rows, tokenizer)
    encoder = TokenEncoder(ModelFolder(folder), max_length)
    texts = TEXTS if pairs is None else list(zip(TEXTS, pairs, strict=True))
    found = padded_batch(encoder.rows(texts), encoder.padding)
    assert set(wanted) <= set(found)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_tokenizers_that_pad_on_the_left_are_known():
    """Their files do not say it; a new one in transformers must be added here."""
    source = Path(transformers.__file__).parent / "models"
    classes = {
        line.split("class ")[1].split("(")[0]
        for path in source.glob("*/tokenization_*.py")
        if 'padding_side = "left"' in (code := path.read_text(encoding="utf-8"))
        for line in code.splitlines()
        if line.startswith("class ") and "Tokenizer" in line
    }
    missing = {name for name in classes if name.removesuffix("Fast") not in text_module._PADS_LEFT}
    assert not missing


def test_a_length_that_special_tokens_fill_is_refused(folder):
    special = TokenEncoder(ModelFolder(folder), None)._tokenizer.num_special_tokens_to_add(is_pair=True)
    with pytest.raises(InvalidParameter, match=r"^max_length must leave room for text, but got max_length=\d+"):
        TokenEncoder(ModelFolder(folder), max(special, 0))


def test_a_tokenizer_that_cannot_be_read_is_answered(tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    copies = [shutil.copytree(tmp_path, tmp_path / name) for name in ("empty", "torn", "no-pad")]
    (copies[0] / "tokenizer.json").unlink()
    (copies[1] / "tokenizer.json").write_text("{", encoding="utf-8")
    edit_json(copies[2] / "tokenizer_config.json", pad_token="[NONE]")
    for folder, words in zip(copies, ("has none", "must be a tokenizer", "a padding or an end token"), strict=True):
        with pytest.raises(InvalidArtifact, match=words):
            TokenEncoder(ModelFolder(folder), 8)
