"""`sgas-gcn`: the console command of the graph family."""

from __future__ import annotations

import sys

from sgas.cli import main as run
from sgas_gcn.family import FAMILY


def main() -> None:
    """Runs the command line and ends the process with its status."""
    sys.exit(run(FAMILY))
