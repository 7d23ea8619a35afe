"""Names in news and in new text of many kinds: CoNLL-2003 and WNUT-17, from their files of columns.

Source: Tjong Kim Sang, De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003, arXiv cs/0306050; Derczynski,
Nichols, van Erp, Limsopatham, "Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition", 2017, doi
10.18653/v1/W17-4418.
Differs: the tags of CoNLL-2003 are in IOB1 in its files, and in IOB2 here; the entities are the same. Held-out examples
come from the training data, so that eng.testa and the dev file of WNUT-17 are not read.
"""

from pathlib import Path
from typing import ClassVar, NamedTuple

from whet.errors import InvalidData
from whet.tasks.base import Task, local_folder
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind, kind_named
from whet.tasks.tagged_files import ENTITY_METRICS, indexed, read_columns, read_tagged, said_of, unlabeled

__all__ = ["Conll"]


class ConllLayout(NamedTuple):
    """Files and types of entities of one data set."""

    train: str
    """The file for training."""
    test: str
    """The file for the final measurement."""
    types: tuple[str, ...]
    """Types of entities, in the order in which models of it are published."""


CONLL_LAYOUTS = {
    "conll2003": ConllLayout("eng.train", "eng.testb", ("PER", "ORG", "LOC", "MISC")),
    "wnut17": ConllLayout(
        "wnut17train.conll",
        "emerging.test.annotated",
        ("corporation", "creative-work", "group", "location", "person", "product"),
    ),
}


class Conll(Task):
    """Sentences of words with tags of entities; `data_dir` holds the official files, also packed with gzip."""

    names: ClassVar[tuple[str, ...]] = tuple(CONLL_LAYOUTS)

    @property
    def label_names(self) -> tuple[str, ...]:
        """See `Task.label_names`."""
        return ("O", *(f"{prefix}-{kind}" for kind in CONLL_LAYOUTS[self.name].types for prefix in "BI"))

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return kind_named("token_classification")

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return ENTITY_METRICS

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        layout = CONLL_LAYOUTS[self.name]
        if self.data_dir is None:
            raise InvalidData(
                f"--data-dir must be given for {self.name}, whose files are on no hub in a form that can be read "
                f"safely, but got none; give the folder with {layout.train} and {layout.test}"
            )
        files = [[f"{name}{ending}" for name in (layout.train, layout.test)] for ending in ("", ".gz")]
        given = next((names for names in files if all((self.data_dir / name).is_file() for name in names)), ())
        folder = self.data_dir if given else local_folder(self.data_dir, self.name)
        return self._read(folder, layout.train), self._read(folder, layout.test)

    def more_text(self, path: Path, *, text: str, text_pair: str | None = None) -> Examples:
        """See `Task.more_text`; tags are not read."""
        return unlabeled(read_tagged(path, text=text, label="tags", labeled=False))

    def _read(self, folder: Path, name: str) -> Examples:
        packed = folder / f"{name}.gz"
        path = packed if packed.is_file() else folder / name
        sentences = read_columns(path)
        self.say_once(f"tags of {name}", said_of(sentences, path))
        return indexed(sentences, self.label_names, source=path)
