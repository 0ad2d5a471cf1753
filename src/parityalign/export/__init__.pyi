from .hub import check_push as check_push
from .hub import check_pushable as check_pushable
from .hub import push_data_set as push_data_set
from .hub import push_student as push_student
from .run_export import export_run as export_run
from .student_card import write_card as write_card
