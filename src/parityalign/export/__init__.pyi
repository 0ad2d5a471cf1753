from .hub import check_push as check_push
from .hub import push_student as push_student
from .hub import write_card as write_card
from .run_export import export_run as export_run
