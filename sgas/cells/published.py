"""Published genotypes of a family by name, from the JSON files that its package holds. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from sgas.cells.genotype import Genotype
from sgas.errors import GenotypeError, unknown_name

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ALIASES = "aliases.json"


@dataclass(frozen=True)
class Published:
    """The genotypes in the folder `genotypes` of a package, and the aliases beside them."""

    package: str

    def names(self) -> tuple[str, ...]:
        """The names of all in order, aliases included."""
        names = [file.name for file in self._folder().iterdir()]
        own = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return tuple(sorted({*own, *self._aliases()} - {ALIASES.removesuffix(".json")}))

    def load(self, name: str) -> Genotype:
        """The genotype of a name or alias in any case; GenotypeError if there is none."""
        wanted, names = name.lower(), self.names()
        if wanted not in names:
            raise unknown_name("published genotype", name, names, error=GenotypeError)
        file = self._folder() / f"{self._aliases().get(wanted, wanted)}.json"
        return Genotype.from_json(file.read_bytes())

    def _folder(self) -> Traversable:
        return files(self.package) / "genotypes"

    def _aliases(self) -> dict[str, str]:
        return json.loads((self._folder() / ALIASES).read_text(encoding="utf-8"))
