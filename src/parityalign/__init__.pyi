from . import metrics as metrics
from .core import Judged as Judged
from .core import Pair as Pair
from .core import Scores as Scores
from .core import UserError as UserError
from .core import Verdict as Verdict
from .core import VerdictKind as VerdictKind
from .pipeline import OpenRun as OpenRun
from .pipeline import identify as identify
from .pipeline import open_run as open_run

__version__: str
