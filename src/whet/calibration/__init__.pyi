"""What studies, benchmarks and other packages may import from this wing."""

from .moments import collect_moments as collect_moments
from .resources import prepare_resources as prepare_resources
from .sensitivity import equalize_low_rank_layers as equalize_low_rank_layers
