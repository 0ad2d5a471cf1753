from .controls import run_controls as run_controls
from .generate import write_demo_data as write_demo_data
from .generate import write_pool as write_pool
from .generate import write_test as write_test
