"""Lets every test import `support`: tests are collected by path (importlib mode), not as a package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
