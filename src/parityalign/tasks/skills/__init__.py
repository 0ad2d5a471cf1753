"""Skills: prompts and a metric. Each module is one skill and defines it as `SKILL`."""
