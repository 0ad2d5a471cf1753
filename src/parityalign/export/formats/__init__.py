"""Export formats: one module per format that other tools read."""
