"""What studies, benchmarks and other packages may import from this wing."""

from .files import write_text as write_text
from .hardware import current_machine as current_machine
from .hardware import supports_products as supports_products
from .manifests import MANIFEST as MANIFEST
from .outputs import check_output as check_output
from .parameters import check as check
from .precision import FP32 as FP32
from .precision import INT8 as INT8
from .precision import ComputePrecision as ComputePrecision
from .progress import progress_bar as progress_bar
from .progress import track as track
