"""Published genotypes by name: `cri1-cifar-3`, `cri2-imagenet-best`, `nasnet`, …

They come from the files of the SGAS authors (github.com/lightaime/sgas, MIT) and of DARTS
(github.com/quark0/darts, Apache 2.0). No torch here: the command line lists and reads them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from sgas.errors import GenotypeError, unknown_name
from sgas.genotype import Genotype

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ALIASES = "aliases.json"


def published_names() -> tuple[str, ...]:
    """The names of all published genotypes in order, aliases included."""
    names = [file.name for file in _folder().iterdir()]
    own = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return tuple(sorted({*own, *_aliases()} - {ALIASES.removesuffix(".json")}))


def load_published(name: str) -> Genotype:
    """The genotype of a published name or alias in any case; GenotypeError if there is none."""
    wanted = name.lower()
    if wanted not in published_names():
        raise unknown_name("published genotype", name, published_names(), error=GenotypeError)
    file = _folder() / f"{_aliases().get(wanted, wanted)}.json"
    return Genotype.from_json(file.read_bytes())


def _folder() -> Traversable:
    return files("sgas_cnn") / "genotypes"


def _aliases() -> dict[str, str]:
    return json.loads((_folder() / ALIASES).read_text(encoding="utf-8"))
