"""The ways to get text from images: one file is one way."""
