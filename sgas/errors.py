"""The whole error tree. A user's mistake is an `InputError` and ends a command with status 2.

Every message says what was given, what is allowed and what to do. Where it names an option, by
`option`, a command's user reads the flag (`--out`), a program's the keyword (`out=`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

MARK, BEFORE_VALUE = "\0", "\1"  # around an option in a message, and before its value there


def option(name: str, value: Any = "") -> str:
    """An option in a message, with the value that is advised, if any."""
    return f"{MARK}{name}{BEFORE_VALUE}{value}{MARK}"


def printable(text: str) -> str:
    """The text with control characters as escapes: a name from a file never steers a terminal."""
    return "".join(part if part.isprintable() else ascii(part)[1:-1] for part in text)


def _phrased(message: str, flag: bool) -> str:
    """A message with its options as flags, or else as keywords."""
    parts = message.split(MARK)
    for place in range(1, len(parts), 2):
        name, _, value = parts[place].partition(BEFORE_VALUE)
        parts[place] = f"--{name} {value}".rstrip() if flag else f"{name}={value}"
    return "".join(parts)


class SgasError(Exception):
    """Base of all errors that this package raises on purpose; a command ends with `exit_status`.

    A message is one line, whatever it quotes.
    """

    exit_status = 1

    def __str__(self) -> str:
        return printable(_phrased(super().__str__(), flag=False))

    def for_command(self) -> str:
        """The message for who typed a command."""
        return printable(_phrased(super().__str__(), flag=True))


class InputError(SgasError, ValueError):
    """What the user gave cannot be used; nothing was written."""

    exit_status = 2


class ConfigError(InputError):
    """An option or a key of a config file is unknown, of the wrong type or out of range.

    `field` is its name, `value` what was given, `choices` what could be, where these are known.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        value: Any = None,
        choices: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.field, self.value, self.choices = field, value, tuple(choices)


class GenotypeError(InputError):
    """A genotype is not a cell of the search space."""


class DataError(InputError):
    """A data set is missing, damaged or not what the task needs."""


class PluginError(InputError):
    """A plug-in cannot be loaded, lacks what it has to have, or is not the one of a run."""


class DeviceError(InputError):
    """The device that was asked for is not on this machine."""


class RunError(InputError):
    """A run folder exists already, is in use by another process, or is not a run."""


class DamagedRunError(SgasError):
    """No checkpoint of a run can be read any more."""


class Interrupted(SgasError):
    """SIGINT or SIGTERM arrived; the state up to here is in the checkpoint."""

    exit_status = 130


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None where none is near (case does not count)."""
    by_lower = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def unknown_name(
    kind: str,
    name: str,
    choices: Iterable[str],
    error: type[InputError] = InputError,
    **carried: Any,
) -> InputError:
    """The error for a name that is in no table: names the choices and the nearest match.

    `carried` is for errors that carry more than a message; these carry the choices too.
    """
    names = sorted(choices)
    near = nearest(name, names)
    hint = f"did you mean {near}? " if near else ""
    shown = ", ".join(names) if len(names) <= 16 else ", ".join(names[:16]) + ", …"
    more = {**carried, "choices": names} if carried else {}
    return error(f"unknown {kind} {name!r}: {hint}choose from {shown}", **more)
