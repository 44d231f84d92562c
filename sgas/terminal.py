"""What is shown on a terminal: names and notes of files never steer it, nor count as markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sgas.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def shown(text: object) -> str:
    """A text of any lines, with all other control characters as escapes."""
    return "\n".join(map(printable, str(text).split("\n")))


def tell(line: object) -> None:
    """Prints one line, whatever a name in it holds: a line break of it is an escape, too."""
    print(printable(str(line)))


def console(**options: Any) -> Console:
    """A console of Rich's on which brackets and colons of a text are nothing but these.

    What it prints is not `shown` yet. `options`: as of Rich's Console.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)
