"""Cluster tests use the small models and batches of the unit tests, and the commands of the integration tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("unit", "integration")]
