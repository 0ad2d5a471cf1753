"""What `tools/fuzz.py` searches: a file a target, each a door through which texts of strangers come in.

A target has `INPUTS`, a Hypothesis strategy, and `check(given)`, which uses the door as the product does. An exception
that leaves `check` is a finding, so it catches what the door promises, such as `UserError`, and nothing else.
`AssertionError` is how it says that a result is wrong. Names that begin with an underscore are no targets.
"""
