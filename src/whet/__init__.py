"""Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.

Importing it makes the saved structure of compressed models known to transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder)` gives the exact model.
"""

from whet.recipe import Recipe
from whet.task import task_named
from whet.training import TrainingSettings
from whet.verbs import finetune

__all__ = ["Recipe", "TrainingSettings", "finetune", "task_named"]
