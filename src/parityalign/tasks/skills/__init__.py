"""What is asked of pictures: prompts and a metric. One file is one skill, and defines it as `SKILL`."""
