"""The terms of the loss: one module per term.

A term defines `losses(passes, **settings)`, which gives a loss for each labelled token of a batch: (N,), see
`_passes.py`. It may also define

- `NEEDS`, a set of what it needs besides the answers: `distribution`, `attention`, `rationale`, `view` (see
  `parityalign.config.training`). It is read from the source before anything is imported, so it has to be a literal;
- `SETTINGS`, a subclass of `Settings`: the settings next to the term's weight in `level.objective`, passed to
  `losses` by name.

Another package offers a term by an entry point in the group `parityalign.losses`.
"""
