"""LIBRARY: the compiled kernels of the image family. No torch at this module's import."""

from __future__ import annotations

from pathlib import Path

from sgas.native.library import Library

FOLDER = Path(__file__).parent / "kernels" / "cpu"

LIBRARY = Library("sgas_cnn", tuple(sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")])))
