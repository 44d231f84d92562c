"""Options of a verb, made of config dataclasses: flags, YAML files, presets, and kind errors.

No torch here. The order in which values win: dataclass default, preset, `--config` file, flag.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from sgas.errors import ConfigError, nearest, unknown_name

# Options that take no value, besides -h and --help.
SWITCHES = ("--json", "--debug", "--print_config", "-h", "--help")


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


@dataclasses.dataclass(frozen=True)
class Nested:
    """The options that another verb has of some config dataclasses, under its name.

    `--train.epochs 5`; in a YAML file, a key `train` with the options below it. `without` names
    the fields that are no options here.
    """

    verb: str
    configs: tuple[type, ...]
    without: tuple[str, ...] = ()


def fields_of(config: type, verb: str) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a config dataclass that are options of a verb, with their types."""
    hints = get_type_hints(config)
    return [
        (spec, hints[spec.name])
        for spec in dataclasses.fields(config)
        if not spec.metadata.get("verbs") or verb in spec.metadata["verbs"]
    ]


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
            choices = spec.metadata["choices"]
            wanted = {"choices": choices} if choices else {"type": kind_of}
            group.add_argument(
                f"--{name}",
                default=spec.default,
                help=_help(spec),
                metavar=None if choices else _metavar(kind_of),
                **wanted,
            )
    return parser


def _options_of(
    section: type | Nested, verb: str
) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """The options of a section: name, field and type of each."""
    if not isinstance(section, Nested):
        yield from ((spec.name, spec, kind) for spec, kind in fields_of(section, verb))
        return
    for config in section.configs:
        for spec, kind in fields_of(config, section.verb):
            if spec.name not in section.without:
                yield f"{section.verb}.{spec.name}", spec, kind


def _help(spec: dataclasses.Field[Any]) -> str:
    shown = "" if spec.default is None else f" (default: {spec.default})"
    return f"{spec.metadata['help']}{shown}".replace("%", "%%")


def _metavar(kind: Any) -> str:
    names = {int: "INT", float: "FLOAT", bool: "{true,false}"}
    (kind, *others) = [part for part in get_args(kind) or (kind,) if part is not type(None)]
    return "TEXT" if others else names.get(kind, "TEXT")


def parse(parser: ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """The values of all options; ConfigError in one line for what cannot be used."""
    try:
        values: dict[str, Any] = parser.parse_args(list(argv)).as_dict()
    except argparse.ArgumentError as error:
        raise ConfigError(_one_line(parser, str(error), argv)) from None
    return values


def _one_line(parser: ArgumentParser, message: str, argv: Sequence[str]) -> str:
    """jsonargparse's message in our words: what was given, what is allowed, the nearest match."""
    known = [a.dest for a in parser._actions if a.option_strings and a.dest != "help"]
    text = " ".join(message.split())
    if found := re.match(r"unrecognized arguments: (\S+)", text):
        given = found[1].split("=")[0]
        if not given.startswith("-"):
            return f"unexpected argument {given!r}; see {parser.prog} --help"
        near = nearest(given.lstrip("-"), known)
        hint = f"did you mean --{near}?" if near else f"see {parser.prog} --help"
        return f"unknown option {given}; {hint}"
    if found := re.match(r"Option '([^']+)' is not accepted", text):
        near = nearest(found[1], known)
        hint = f"did you mean {near}?" if near else f"see {parser.prog} --print_config"
        return f"unknown key {found[1]!r} in the config file; {hint}"
    if found := re.match(
        r'Parser key "([^"]+)": Expected an? (?:<class \')?(\w+)\S* Got value: (.*)', text
    ):
        return f"--{found[1]} takes {_TYPE_NAMES.get(found[2], found[2])}, got {found[3]!r}"
    if found := re.match(
        r'Parser key "([^"]+)": Does not validate against any of the Union subtypes'
        r".*?Expected an? <class '(\w+)'>.* Given value: (.*)",
        text,
    ):
        return f"--{found[1]} takes {_TYPE_NAMES.get(found[2], found[2])}, got {found[3]!r}"
    if found := re.match(
        r"argument --([\w.]+): invalid choice: '?(.*?)'? \(choose from (.*)\)", text
    ):
        choices = re.findall(r"[\w.-]+", found[3])
        return str(unknown_name(f"value of --{found[1]}", found[2], choices))
    if found := re.match(r'Parser key "config": File does not exist: (.*)', text):
        return f"the config file {found[1]} does not exist"
    if found := re.match(r'Parser key "config": Path is not a file: (.*)', text):
        return f"the config file {found[1]} is no file"
    if found := re.match(r"argument (--[\w.]+): expected one argument", text):
        return f"{found[1]} takes a value; see {parser.prog} --help"
    if text.startswith("Problems parsing config"):
        return f"the config file is no YAML: {text.partition(': ')[2]}"
    if found := re.match(r"the following arguments are required: (.*)", text):
        return f"{found[1]} is missing; see {parser.prog} --help"
    return text


_TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def presets(package: str, space: str) -> dict[str, Any]:
    """The preset files of a family for a space, by name."""
    folder, prefix = resources.files(package) / "presets", f"{space}-"
    return {
        path.name.removeprefix(prefix).removesuffix(".yaml"): path
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.name.startswith(prefix) and path.name.endswith(".yaml")
    }


def load_preset(package: str, space: str, name: str, verb: str) -> dict[str, Any]:
    """The values of a preset for a verb; InputError with the choices for an unknown name."""
    files = presets(package, space)
    if name not in files:
        raise unknown_name(f"preset for space {space}", name, files)
    preset = yaml.safe_load(files[name].read_text())
    return dict(preset.get(verb) or {})


def resolve(parser: ArgumentParser, argv: Sequence[str], preset_of: Any) -> dict[str, Any]:
    """All values, presets included. `preset_of(values)` gives the preset's values."""
    first = parse(parser, [word for word in argv if not word.startswith("--print_config")])
    preset = preset_of(first)
    known = {action.dest for action in parser._actions}
    for key in preset:
        if key not in known:
            near = nearest(key, known)
            raise ConfigError(
                f"unknown key {key!r} in the preset{f'; did you mean {near}?' if near else ''}"
            )
    parser.set_defaults(preset)
    values = parse(parser, argv)
    settled = ("dataset", "space", "preset")
    values.update({key: first[key] for key in settled if key in first})
    return values


def peek(argv: Sequence[str], name: str) -> str | None:
    """The value of one option, by flag or else by config file, before there is a parser for all.

    Which options a verb has depends on the data set; what is wrong here is told by the parser.
    """
    found = None
    for place, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in (f"--{name}", "--config"):
            value = value if equals else "".join(argv[place + 1 : place + 2])
            if flag == f"--{name}":
                return value
            found = _in_file(value, name) or found
    return found


def first_positional(argv: Sequence[str]) -> str | None:
    """The first argument that is neither an option nor an option's value; None without one."""
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            return word
        if "=" not in word and word not in SWITCHES:
            next(words, None)
    return None


def _in_file(path: str, name: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) else None


def build(config: type, values: Mapping[str, Any]) -> Any:
    """A config dataclass of the values that carry its fields' names."""
    names = {spec.name for spec in dataclasses.fields(config)}
    return config(**{name: value for name, value in values.items() if name in names})


def rebuild(config: type, values: Mapping[str, Any], where: str) -> Any:
    """A config dataclass of a run's config.json; ConfigError for a key that it does not know."""
    names = {spec.name for spec in dataclasses.fields(config)}
    for name in values:
        if name not in names:
            raise ConfigError(f"unknown key {name!r} in {where}; this run is of another version")
    try:
        return config(**values)
    except TypeError:
        raise ConfigError(f"a value in {where} is of the wrong type; the file is damaged") from None
