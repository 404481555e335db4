"""GPU tests share the small models of the unit tests and the work of the cluster tests."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("unit", "cluster"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
