"""What a run found, as tables, pictures and one self-contained HTML page; no torch, no network."""
