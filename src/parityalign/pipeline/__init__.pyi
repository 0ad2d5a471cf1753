from .level import leveller as leveller
from .pipeline import align as align
from .preflight import open_run_folder as open_run_folder
from .preflight import refuse_foreign_folder as refuse_foreign_folder
from .preflight import refuse_other_run as refuse_other_run
from .preflight import refuse_shared_folder as refuse_shared_folder
from .run import Outcome as Outcome
from .run import Run as Run
