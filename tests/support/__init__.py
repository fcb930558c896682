"""Fixtures and simulators shared by tests."""
