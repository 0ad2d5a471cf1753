"""Servers that a run starts: the process and what watches it, their programs, a model behind one."""
