"""Every reproduction script, one after the other; CI runs them at scale tiny.

python benchmarks/reproduce/all.py --scale tiny|small|full [--protocol clean|paper] [--out FOLDER]
"""

from __future__ import annotations

import sys

import cifar10
import imagenet
import modelnet40
import ppi
import random_search
from reproduction import main

SCRIPTS = (cifar10, imagenet, modelnet40, ppi, random_search)
REPRODUCTIONS = tuple(entry for script in SCRIPTS for entry in script.REPRODUCTIONS)

if __name__ == "__main__":
    sys.exit(main(REPRODUCTIONS))
