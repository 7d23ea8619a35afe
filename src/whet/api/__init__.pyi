"""The verbs, each imported when it is first used."""

from .cascading import Cascade as Cascade
from .cascading import cascade as cascade
from .comparing import Compared as Compared
from .comparing import compare as compare
from .compressing import Compressed as Compressed
from .compressing import compress as compress
from .deploying import Deployment as Deployment
from .deploying import deploy as deploy
from .exporting import export as export
from .inspecting import inspect as inspect
from .loading import load_model as load_model
from .measuring import measure as measure
from .training import distill as distill
from .training import finetune as finetune
