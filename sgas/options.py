"""The command line's own part: words to values of options, help, YAML files. No torch here.

What an option is, which values it takes and how a wrong one is told stands in `sgas.config`; how
presets and defaults come to what was asked for, in `sgas.running.settings`. jsonargparse is used
here and by the verbs alone.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import yaml
from jsonargparse import ArgumentParser

from sgas.config import checked, fields_of, refuse_unknown
from sgas.errors import ConfigError, SgasError, option

MOST_BRACKETS = 1000  # of a YAML file of options
# Options that take no value.
SWITCHES = ("json", "debug", "print_config", "h", "help")


@dataclasses.dataclass(frozen=True)
class Positional:
    """An argument without a flag."""

    name: str
    help: str


@dataclasses.dataclass(frozen=True)
class Flag:
    """An option that belongs to a verb alone and is no field of a config: `--json`, `--resume`."""

    name: str
    help: str
    is_switch: bool = True


PLUGIN = Flag(
    "plugin",
    "file with operations, strategies, data sets or spaces of your own, or the name of an "
    "installed one; may be given several times",
    is_switch=False,
)


@dataclasses.dataclass(frozen=True)
class Nested:
    """The options that another verb has of some config dataclasses, under its name.

    `--train.epochs 5`; in a YAML file, a key `train` with the options below it. `without` names
    the fields that are no options here.
    """

    verb: str
    configs: tuple[type, ...]
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of a command, sorted: options in order (value None: it has none), and the rest."""

    options: tuple[tuple[str, str | None], ...]
    positionals: tuple[str, ...]

    @classmethod
    def of(cls, argv: Sequence[str]) -> Words:
        """Sorts the words that follow a verb."""
        options: list[tuple[str, str | None]] = []
        positionals = []
        words = list(argv)[::-1]
        while words:
            word = words.pop()
            name, equals, value = word.lstrip("-").partition("=")
            if not word.startswith("-"):
                positionals.append(word)
            elif equals or name in SWITCHES or not words or words[-1].startswith("--"):
                options.append((name, value if equals else None))
            else:
                options.append((name, words.pop()))
        return cls(tuple(options), tuple(positionals))

    def value(self, name: str) -> str | None:
        """The value of an option, by flag or else by config file, before there is a parser.

        Which options a verb has depends on the data set; what is wrong here is told by `parse`.
        """
        by_flag = [value for flag, value in self.options if flag == name and value is not None]
        if by_flag:
            return by_flag[-1]
        in_file = None
        for file in (value for flag, value in self.options if flag == "config" and value):
            try:
                value = read_yaml(file).get(name)
            except ConfigError:
                continue
            in_file = value if isinstance(value, str) else in_file
        return in_file


def parser_for(
    prog: str,
    verb: str,
    description: str,
    sections: Mapping[str, type | Nested],
    positionals: Sequence[Positional] = (),
    flags: Sequence[Flag] = (),
    epilog: str = "",
) -> ArgumentParser:
    """A parser whose options are the fields of `sections`, titled by their keys."""
    parser = ArgumentParser(
        prog=f"{prog} {verb}",
        description=description,
        epilog=epilog,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=argparse.HelpFormatter,
    )
    for positional in positionals:
        parser.add_argument(positional.name, help=positional.help)
    for flag in flags:
        kind: dict[str, Any] = {"action": "store_true"} if flag.is_switch else {"default": None}
        parser.add_argument(f"--{flag.name}", help=flag.help, **kind)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if sections:
        parser.add_argument("--config", action="config", help="YAML file with values of options")
    for title, section in sections.items():
        group = parser.add_argument_group(title)
        for name, spec, kind_of in _options_of(section, verb):
            group.add_argument(
                f"--{name}",
                default=spec.default,
                help=help_of(spec).replace("%", "%%"),
                metavar=metavar_of(spec, kind_of),
                type=partial(checked, spec, kind_of, name=name),
            )
    return parser


def _options_of(
    section: type | Nested, verb: str
) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """The options of a section: name, field and type of each."""
    if not isinstance(section, Nested):
        yield from ((name, *field) for name, field in fields_of(section, verb).items())
        return
    for config in section.configs:
        for name, field in fields_of(config, section.verb).items():
            if name not in section.without:
                yield f"{section.verb}.{name}", *field


def help_of(spec: dataclasses.Field[Any]) -> str:
    """What an option is, what each of its choices is, and its default."""
    choices = spec.metadata["choices"]
    table = choices if isinstance(choices, Mapping) else {}
    each = [f"{name}: {info.help}" for name, info in table.items()]
    default = str(spec.default).lower() if isinstance(spec.default, bool) else spec.default
    shown = "" if spec.default is None else f" (default: {default})"
    return f"{'; '.join([spec.metadata['help'], *each])}{shown}"


def metavar_of(spec: dataclasses.Field[Any], kind: Any) -> str:
    """What an option takes: its choices, or a type."""
    if spec.metadata["choices"]:
        return f"{{{','.join(spec.metadata['choices'])}}}"
    names = {int: "INT", float: "FLOAT", bool: "{true,false}"}
    (kind, *others) = [part for part in get_args(kind) or (kind,) if part is not type(None)]
    return "TEXT" if others else names.get(kind, "TEXT")


def parse(parser: ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """The values of options that a command gives, and of all its arguments and `Flag`s.

    Those of `Nested` are in dictionaries of their own. Prints the help where that is asked for.
    ConfigError in one line for what cannot be used.
    """
    _refuse_words(parser, Words.of(argv))
    argv = [word for word in argv if word.partition("=")[0] != "--print_config"]
    try:
        values: dict[str, Any] = parser.parse_args(argv, defaults=False).as_dict()
    except argparse.ArgumentError as error:
        raise _cause(error) or ConfigError(" ".join(str(error).split())) from None
    flags = {action.dest: action.default for action in parser._actions if action.type is None}
    return {**flags, **values}


def print_config(parser: ArgumentParser, argv: Sequence[str], values: Mapping[str, Any]) -> None:
    """Where a command asks for it, prints all values as a YAML file and ends the process.

    `values`, by dotted name, stand for the defaults of what the command does not give.
    """
    if any(name == "print_config" for name, _ in Words.of(argv).options):
        known = _dests(parser)
        named = flattened(parse(parser, argv), known)
        defaults = {n: v for n, v in values.items() if n in known and n not in named}
        parser.set_defaults(defaults)
        parser.parse_args(list(argv))


def _dests(parser: ArgumentParser) -> dict[str, bool]:
    """All options of a parser by name, and whether each is a switch."""
    return {
        action.dest: action.nargs == 0
        for action in parser._actions
        if action.option_strings and action.dest != "help"
    }


def _refuse_words(parser: ArgumentParser, words: Words) -> None:
    """ConfigError for an option that there is none of, one without its value, a wrong count of
    arguments, a config file that cannot be read or has an unknown key."""
    see = f"see {parser.prog} --help"
    if any(name in ("h", "help") for name, _ in words.options):
        return
    known = _dests(parser)
    for name, value in words.options:
        refuse_unknown([name], known, otherwise=f"; {see}")
        if value is None and name not in SWITCHES and not known[name]:
            raise ConfigError(f"{option(name)} takes a value; {see}", field=name)
        if name == "config" and value is not None:
            below = flattened(read_yaml(value), known)
            otherwise = f"; see {parser.prog} --print_config"
            refuse_unknown(below, known, "unknown key {} in the config file", otherwise)
    wanted = [action.dest for action in parser._actions if not action.option_strings]
    if len(words.positionals) > len(wanted):
        extra = words.positionals[len(wanted)]
        raise ConfigError(f"unexpected argument {extra!r}; {see}")
    if len(words.positionals) < len(wanted):
        raise ConfigError(f"{wanted[len(words.positionals)]} is missing; {see}")


def flattened(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name: those below a key that is no option of its own come as `key.name`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and name not in known:
            flat.update({f"{name}.{below}": v for below, v in value.items()})
        else:
            flat[str(name)] = value
    return flat


def read_yaml(path: str) -> dict[str, Any]:
    """The values in a YAML file; ConfigError where it cannot be read as such."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if sum(map(text.count, "[{")) > MOST_BRACKETS:  # each costs the reader all around it
            raise ConfigError(
                f"the config file {path!r} has more than {MOST_BRACKETS} brackets: that is no YAML "
                "of options and their values"
            )
        values = yaml.safe_load(text) or {}
    except FileNotFoundError:
        raise ConfigError(f"the config file {path!r} does not exist") from None
    except OSError as error:
        raise ConfigError(f"the config file {path!r} cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:  # of its reader
        raise ConfigError(f"the config file is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"the config file {path!r} is no YAML of options and their values")
    return values


def _cause(error: BaseException | None) -> SgasError | None:
    """What `checked` raised, which jsonargparse words anew."""
    while error is not None and not isinstance(error, SgasError):
        error = error.__cause__ or error.__context__
    return error
