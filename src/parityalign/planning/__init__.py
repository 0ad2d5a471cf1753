"""Projects what a run will take before it begins: tokens, time, memory and money."""
