"""The Penn Treebank as language models know it: 929,589 tokens for training, 82,430 for the final measurement.

The text is Mikolov's: lower case, 10,000 words, numbers as N, one sentence a line. Each line ends with <eos>, as usual.

Source: Marcus, Santorini, Marcinkiewicz, "Building a large annotated corpus of English: the Penn Treebank",
Computational Linguistics 19, 1993; Mikolov, Karafiát, Burget, Černocký, Khudanpur, "Recurrent neural network based
language model", Interspeech 2010.
"""

from functools import cached_property
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Splits, local_folder
from whet.tasks.corpus import Passages, running_text
from whet.tasks.datasets._language import LanguageTask, running_text_of

__all__ = ["PennTreebank"]


class PennTreebank(LanguageTask):
    """Three files of running text; `data_dir` holds ptb.train.txt and others, or a folder ptb with them."""

    names: ClassVar[tuple[str, ...]] = ("ptb",)

    def read_passages(self) -> tuple[Passages, Passages]:
        """See `LanguageTask.read_passages`."""
        return self._split("train"), self._split("test")

    @cached_property
    def splits(self) -> Splits:
        """See `Task.splits`; the official validation text serves for choices."""
        return Splits(self.passages[0], self._split("valid"), self.passages[1])

    def _split(self, name: str) -> Passages:
        if self.data_dir is None:
            raise InvalidData("--data-dir must be given with ptb, which the hub does not have, but got none; add it")
        path = local_folder(self.data_dir, self.name, files=("ptb.train.txt",)) / f"ptb.{name}.txt"
        text = running_text_of(path).replace("\n", "<eos>\n")
        return running_text(text, reading=self.reading, split="dev" if name == "test" else "train", source=path)
