"""The forms in which a run leaves the house: one file is one format that other tools read."""
