"""Random-search baselines of all three families: cells drawn from the space, trained alike.

    python benchmarks/reproduce/random_search.py --scale tiny|small|full [--protocol clean|paper]

The same scales as the other scripts with the strategy `random` alone. Where
another script has drawn random cells already, its table has this baseline beside its strategies.
"""

from __future__ import annotations

import dataclasses
import sys

from cifar10 import CIFAR10
from modelnet40 import MODELNET40
from paper import Reproduction
from ppi import PPI
from reproduction import main


def baseline(reproduction: Reproduction) -> Reproduction:
    """A reproduction with random cells alone."""
    scales = {
        name: dataclasses.replace(scale, strategies="random")
        for name, scale in reproduction.scales.items()
    }
    return dataclasses.replace(
        reproduction,
        name=f"random-{reproduction.name}",
        title=f"Random cells · {reproduction.title}",
        scales=scales,
    )


REPRODUCTIONS = tuple(baseline(reproduction) for reproduction in (CIFAR10, MODELNET40, PPI))

if __name__ == "__main__":
    sys.exit(main(REPRODUCTIONS))
