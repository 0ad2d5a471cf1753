from ._load import load_task as load_task
from ._load import task_of as task_of
from ._settled import settled as settled
