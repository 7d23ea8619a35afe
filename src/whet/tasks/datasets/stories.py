"""TinyStories: short stories in the words of a child of three, on which language models of any size can be tried.

Source: Eldan, Li, "TinyStories: How Small Can Language Models Be and Still Speak Coherent English?", 2023, arXiv
2305.07759; on the hub as roneneldan/TinyStories.
"""

from typing import ClassVar

from whet.tasks.base import local_folder, read_hub
from whet.tasks.corpus import Passages, documents
from whet.tasks.datasets._language import LanguageTask, running_text_of

__all__ = ["TinyStories"]

HUB_TRAIN, HUB_DEV = "train[:20000]", "validation[:2000]"
"""More than training and measuring can use."""


class TinyStories(LanguageTask):
    """One document a story; `data_dir` holds stories.txt, one story a line, of which the second half is for dev."""

    names: ClassVar[tuple[str, ...]] = ("stories",)
    hub_name: ClassVar[str] = "roneneldan/TinyStories"

    def read_passages(self) -> tuple[Passages, Passages]:
        """See `LanguageTask.read_passages`."""
        train, dev = self._stories()
        return (
            documents(train, reading=self.reading, split="train"),
            documents(dev, reading=self.reading, split="dev"),
        )

    def _stories(self) -> tuple[list[str], list[str]]:
        if self.data_dir is None:
            train, dev = (read_hub(self.hub_name, split) for split in (HUB_TRAIN, HUB_DEV))
            return list(train["text"]), list(dev["text"])
        folder = local_folder(self.data_dir, self.name, files=("stories.txt",))
        stories = running_text_of(folder / "stories.txt").splitlines()
        half = len(stories) // 2
        return stories[:half], stories[half:]
