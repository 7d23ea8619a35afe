"""What studies, benchmarks and other packages may import from this wing."""

from .data import Batch as Batch
from .encoding import encode as encode
from .encoding import fitting_batch_sizes as fitting_batch_sizes
from .encoding import shortest_first as shortest_first
from .kinds.base import Answers as Answers
from .retrieval import Candidates as Candidates
from .retrieval import Retrieval as Retrieval
from .retrieval import nearest as nearest
from .similarity import SentencePairs as SentencePairs
from .similarity import unit_vectors as unit_vectors
from .splits import ResplitTask as ResplitTask
