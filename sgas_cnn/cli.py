"""`sgas-cnn`: the console command of the image family."""

from __future__ import annotations

import sys

from sgas.cli import main as run
from sgas_cnn.family import FAMILY


def main() -> None:
    """Runs the command line and ends the process with its status."""
    sys.exit(run(FAMILY))
