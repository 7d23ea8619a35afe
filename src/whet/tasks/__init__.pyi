"""What studies, benchmarks and other packages may import from this wing."""

from .data import Batch as Batch
from .encoding import encode as encode
from .encoding import fitting_batch_sizes as fitting_batch_sizes
from .encoding import shortest_first as shortest_first
from .encoding import tokenize as tokenize
from .kinds.base import kl_divergences as kl_divergences
from .splits import ResplitTask as ResplitTask
