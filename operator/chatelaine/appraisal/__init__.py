"""Verified claims and a policy in, a verdict with its reasons out. Pure: the same inputs give the same bytes."""
