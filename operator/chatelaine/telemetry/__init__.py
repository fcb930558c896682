"""Logs and metrics. Usable from `wire` upwards."""
