"""What studies, benchmarks and other packages may import from this wing."""

from .metrics.base import ModelUnderTest as ModelUnderTest
from .metrics.base import quality_named as quality_named
from .records import record as record
from .records import save_model as save_model
from .rows import BenchmarkRow as BenchmarkRow
from .significance import Estimate as Estimate
from .significance import bootstrap as bootstrap
from .significance import mcnemar as mcnemar
from .significance import paired_bootstrap as paired_bootstrap
from .significance import paired_ratio as paired_ratio
from .timing import representative_batches as representative_batches
from .timing import time_batches as time_batches
from .timing import time_interleaved as time_interleaved
