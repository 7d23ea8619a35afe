"""What studies, benchmarks and other packages may import from this wing."""

from .result import BEST as BEST
from .targets import Target as Target
