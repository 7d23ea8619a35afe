"""What studies, benchmarks and other packages may import from this wing."""

from .coding import Coding as Coding
from .divergence import categorical_kl as categorical_kl
from .kmeans import Initialization as Initialization
from .kmeans import nearest_centroid as nearest_centroid
from .kmeans import quantize_to_centroids as quantize_to_centroids
from .low_rank import break_even as break_even
from .low_rank import factors_at_rank as factors_at_rank
from .low_rank import output_pca as output_pca
from .moments import Moments as Moments
from .moments import Side as Side
from .moments import narrower_side as narrower_side
from .optimal_brain_surgeon import add_damping as add_damping
from .optimal_brain_surgeon import removal_order as removal_order
