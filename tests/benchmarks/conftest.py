"""Puts benchmarks/ and its scripts' folder on the path, where Python puts them for a script."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "reproduce")]
