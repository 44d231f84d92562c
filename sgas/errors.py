"""The whole error tree. A user's mistake is an `InputError` and ends a command with status 2.

Every message says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SgasError(Exception):
    """Base of all errors that this package raises on purpose; a command ends with `exit_status`."""

    exit_status = 1


class InputError(SgasError, ValueError):
    """What the user gave cannot be used; nothing was written."""

    exit_status = 2


class ConfigError(InputError):
    """An option or a key of a config file is unknown, of the wrong type or out of range."""


class GenotypeError(InputError):
    """A genotype is not a cell of the search space."""


class DataError(InputError):
    """A data set is missing, damaged or not what the task needs."""


class DeviceError(InputError):
    """The device that was asked for is not on this machine."""


class RunError(InputError):
    """A run folder exists already, is in use by another process, or is not a run."""


class DamagedRunError(SgasError):
    """No checkpoint of a run can be read any more."""


class Interrupted(SgasError):
    """SIGINT or SIGTERM arrived; the state up to here is in the checkpoint."""

    exit_status = 130


def nearest(given: str, choices: Iterable[str]) -> str | None:
    """The choice most like `given`, or None where none is near (case does not count)."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(given.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown_name(
    kind: str, given: str, choices: Iterable[str], error: type[InputError] = InputError
) -> InputError:
    """The error for a name that is in no table: names the choices and the nearest match."""
    names = sorted(choices)
    near = nearest(given, names)
    hint = f"did you mean {near}? " if near else ""
    shown = ", ".join(names) if len(names) <= 16 else ", ".join(names[:16]) + ", …"
    return error(f"unknown {kind} {given!r}: {hint}choose from {shown}")
