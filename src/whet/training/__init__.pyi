"""What studies, benchmarks and other packages may import from this wing."""

from .distiller import TEACHER_LOGITS as TEACHER_LOGITS
from .distiller import Teacher as Teacher
from .teacher_cache import teacher_logits as teacher_logits
