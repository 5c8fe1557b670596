"""Nightly classification of photographs of returned goods."""

__version__ = "0.1.0"
