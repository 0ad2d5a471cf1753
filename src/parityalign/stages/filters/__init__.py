"""Filters of pairs: one module each, named like its setting in the section `verify`."""
