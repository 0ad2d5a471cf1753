from .packages import refuse_missing_packages as refuse_missing_packages
from .serving import serve_runs as serve_runs
