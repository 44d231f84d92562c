"""`check FOLDER`: what a data folder holds, and what looks wrong, before anything long starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgas.commands.common import print_json
from sgas.config import AUTO, TARGETS
from sgas.errors import DataError, unknown_name
from sgas.family import Family
from sgas.options import Flag, Positional, parse, parser_for
from sgas.terminal import tell

SHOWN = 60  # files or classes, a line each
FOLDER = Positional("folder", "folder with your own data")


def main(family: Family, argv: Sequence[str]) -> int:
    """Runs `check`: 0 where the folder can be used, 2 where not."""
    about = "Say what a data folder holds (counts, shapes, classes, range) and what looks wrong."
    flags = [
        Flag("json", "print one JSON object"),
        Flag(
            "target", f"{', '.join(TARGETS)}: what the labels are (default: auto)", is_switch=False
        ),
    ]
    parser = parser_for(family.command, "check", about, {}, [FOLDER], flags)
    values = parse(parser, argv)
    if not Path(values["folder"]).exists():
        raise DataError(f"{values['folder']} does not exist; check takes the path of your own data")
    if values["target"] not in (None, *TARGETS):
        raise unknown_name("target", values["target"], TARGETS)
    content = family.check_folder(values["folder"], values["target"] or AUTO)
    if values["json"]:
        print_json(content)
    else:
        _print(content)
    return 2 if content["problems"] else 0


def _print(content: dict[str, Any], indent: str = "") -> None:
    for name, value in content.items():
        if isinstance(value, dict):
            tell(f"{indent}{name}")
            _print(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], str) and _are_lines(value):
            tell(f"{indent}{name}")
            for line in value:
                tell(f"{indent}  {line}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tell(f"{indent}{name}")
            for item in value[:SHOWN]:
                (_, first), *others = item.items()
                tell(f"{indent}  {first:<15} {'  '.join(map(_short, others))}")
            if len(value) > SHOWN:
                tell(f"{indent}  and {len(value) - SHOWN} more, which --json lists")
        else:
            tell(f"{indent}{name:<16} {value if value != [] else 'none'}")


def _are_lines(texts: list[str]) -> bool:
    """Whether texts stand a line each: sentences, or a few words."""
    return len(texts) < 9 or " " in texts[0]


def _short(item: tuple[str, Any]) -> str:
    """A name and its value in a few words; of nested values, these alone."""
    name, value = item
    if not isinstance(value, dict):
        return f"{name} {value}"
    if any(isinstance(part, dict) for part in value.values()):
        return f"{name}: " + ", ".join(map(_short, value.items()))
    return " ".join([name, *map(str, value.values())])
