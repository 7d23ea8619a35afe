"""What studies, benchmarks and other packages may import from this wing."""

from .architecture import Architecture as Architecture
from .architecture import dense_bias as dense_bias
from .architecture import dense_layers_in_blocks as dense_layers_in_blocks
from .architecture import dense_weight as dense_weight
from .artifact import exported as exported
from .artifact import verify as verify
from .artifact import versions as versions
from .inference import input_names as input_names
from .inference import predict as predict
from .inference import predict_logits as predict_logits
from .inference import removing_hooks as removing_hooks
from .layers.codebook import Clustered as Clustered
from .layers.codebook import CodebookSpec as CodebookSpec
from .layers.low_rank import LowRank as LowRank
from .load import class_order as class_order
from .load import common_max_length as common_max_length
from .load import load_tokenizer as load_tokenizer
from .load import load_with_new_head as load_with_new_head
from .load import weight_files as weight_files
from .surgery import copy_sharing_parameters as copy_sharing_parameters
from .surgery import describe as describe
from .surgery import replace_module as replace_module
from .surgery import to_storage as to_storage
