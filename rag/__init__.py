"""Retrieval-augmented generation from one sealed bundle: open it, search it, answer with it."""

__version__ = "0.1.0"
