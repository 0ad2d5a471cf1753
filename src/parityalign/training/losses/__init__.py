"""The terms of the loss: one file is one term.

A term defines `losses(passes, **settings)`, a loss for each labelled token of a batch: (N,), see `_passes.py`. It may
define

- `NEEDS`, a set of what it needs besides the answers: `distribution`, `attention`, `rationale`, `view` (see
  `parityalign.config.training`). It is read off the source before anything is imported, so it has to be a literal;
- `SETTINGS`, a subclass of `Settings`: what may stand beside the term's weight in `level.objective`, and what `losses`
  is given by name.

Another package offers a term by an entry point in the group `parityalign.losses`.
"""
