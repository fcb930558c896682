"""Bytes in, verified claims out. Pure: no I/O, no clock, no randomness; all of these are arguments."""
