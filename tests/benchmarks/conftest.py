"""Puts benchmarks/ on the path, where Python itself puts it for a script of that folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
