"""LIBRARY: the compiled kernels of points and graphs. No torch at this module's import."""

from __future__ import annotations

from pathlib import Path

from sgas.native.library import Library

FOLDER = Path(__file__).parent / "kernels" / "cpu"

LIBRARY = Library("sgas_gcn_cpu", tuple(sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")])))
