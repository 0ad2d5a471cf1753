"""The tasks: one file is one skill with its prompts, metric and benchmark reader."""
