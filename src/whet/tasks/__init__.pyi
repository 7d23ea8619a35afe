"""What studies, benchmarks and other packages may import from this wing."""

from .data import Batch as Batch
from .encoding import encode as encode
from .encoding import fitting_batch_sizes as fitting_batch_sizes
from .encoding import shortest_first as shortest_first
from .kinds.base import Answers as Answers
from .splits import ResplitTask as ResplitTask
