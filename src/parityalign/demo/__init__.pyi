from .controls import run_controls as run_controls
from .generate import write_demo_data as write_demo_data
