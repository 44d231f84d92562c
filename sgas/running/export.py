"""Exports the network of a space, by the form that its family has for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgas.errors import ConfigError, InputError, unknown_name
from sgas.family import Family

if TYPE_CHECKING:
    from sgas.exporting.export import Exported
    from sgas.exporting.python_file import About


def export_network(
    family: Family,
    space: str,
    network: Any,
    preparation: Any,
    example: Any,
    about: About,
    out: str | Path,
    format: str,
) -> Exported:
    """Writes a network of a space as `export` says; `out` may lack its suffix."""
    from sgas.exporting.export import FORMATS, export

    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS, ConfigError)
    make_form = family.spaces[space].form
    if make_form is None:
        raise InputError(
            f"networks of space {space} cannot be exported: load(RUN) gives its network, which "
            "predicts"
        )
    form = make_form(network.eval(), preparation, example)
    path = Path(out) if Path(out).suffix else Path(f"{out}{FORMATS[format][0]}")
    return export(network, form, about, path, format, family.library)
