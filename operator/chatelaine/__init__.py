"""Chatelaine: hardware keys only for platforms that have just been proven."""

__version__ = "0.1.0.dev0"
