"""Sources of unlabelled images: one module per kind of source, named like the suffix of such files."""
