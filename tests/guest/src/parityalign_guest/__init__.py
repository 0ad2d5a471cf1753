"""A guest of parityalign: one part of each kind, about cards of one colour. CONTRIBUTING.md walks through it."""
