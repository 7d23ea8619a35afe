"""What studies, benchmarks and other packages may import from this wing."""

from .result import BEST as BEST
from .sampler import next_structure as next_structure
from .space import LESS as LESS
from .space import TABLES as TABLES
from .space import Space as Space
from .space import Structure as Structure
from .targets import Target as Target
