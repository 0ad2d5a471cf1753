"""What made the embedded models; not part of the installed package."""
