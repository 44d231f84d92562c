"""How the scripts end: a table or one JSON object, or the error in one line. Files of results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sgas.errors import SgasError


def report(
    measure: Callable[[], Mapping[str, Any]],
    print_table: Callable[[Mapping[str, Any]], None],
    as_json: bool,
) -> int:
    """Prints what `measure` finds and returns the exit status: 0, 2 for wrong input, else 1."""
    try:
        result = measure()
    except SgasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
    return 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What `add_line` has put into a file of results; none where it does not exist yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_line(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a JSON line to a file of results."""
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def kept(
    file: str | None, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """What was measured under a key before, by a line of the file, or what is now and is added.

    Lines of other keys are left alone; without a file nothing is kept.
    """
    path, key = Path(file or os.devnull), json.loads(json.dumps(key))
    for line in read_lines(path):
        if line["key"] == key:
            return dict(line["found"])
    found = measure()
    add_line(path, {"key": key, "found": found})
    return dict(found)
