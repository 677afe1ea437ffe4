"""Says in one line which option of a command line or config is wrong, and how it may have been meant."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from sessrec.option_types import (
    accepts,
    base_class,
    choices_of,
    class_options,
    classes_with,
    described,
    find_class,
    known_classes,
    takes_list,
    type_hint,
)
from sessrec.suggestions import alternatives, did_you_mean, nearest, question

_PARTS_OF_CLASS = ("class_path", "init_args", "dict_kwargs")
_SHORT_OPTIONS = {"-c": "--config", "-h": "--help"}


class _Given(NamedTuple):
    """An option and its value, where somebody has written them."""

    key: str
    """Name of the option, such as ``model.layers``."""
    value: Any
    file: str | None = None
    """The config that it is in; None on the command line."""
    place: str = ""
    """Name in the config, such as ``model.init_args.layers``."""

    @property
    def named(self) -> str:
        """The option as it is written there, after the name of the config."""
        return f"--{self.key}" if self.file is None else f"{self.file}: {self.place}"

    def unknown(self, of: str, keys: Iterable[str], hint: str = "") -> str:
        """Say that there is no such option, and which of some others may be meant."""
        where, name = ("", f"--{self.key}") if self.file is None else (f"{self.file}: ", self.place)
        found = nearest(self.key, keys)
        return f"{where}unknown option {name}{of}{hint}{question([self._placed(key) for key in found])}"

    def _placed(self, key: str) -> str:
        """Another option, as it is to be written in this one's place."""
        if self.file is None:
            return f"--{key}"
        group, _, name = key.rpartition(".")
        return f"{self.place.rpartition('.')[0]}.{name}" if self.key.rpartition(".")[0] == group and group else key


def explain(parser: LightningArgumentParser, args: list[str], message: str) -> str:
    """Say what is wrong with arguments that a parser does not accept.

    Args:
        parser: The parser.
        args: The arguments.
        message: The parser's own words, for a fault that is not known here.
    """
    options = _Options(parser)
    for given in _command_line(args):
        if isinstance(given, str):
            return given
        for one in options.parts_of(given):
            if fault := options.fault(one):
                return fault
    message = " ".join(message.split())
    return _missing(message) or message


def _missing(message: str) -> str | None:
    """Which options a class needs that are not given, where that is what the parser says; None elsewhere."""
    needs = r"class_path '[\w.]*?(\w+)': the following arguments are required: ([\w, ]*\w)"
    found = re.search(rf'"([\w.]+)":.*?{needs}', message)
    if found is None:
        return None
    slot, name, options = found.groups()
    needed = " and ".join(f"--{slot}.{option}" for option in options.replace(",", " ").split())
    plus = "+" if slot.endswith("s") else ""  # a list
    return f"--{slot} {name} needs {needed}: --{slot}{plus}={name} {needed} VALUE"


def _command_line(args: list[str]) -> Iterator[_Given | str]:
    """Options as they are given, with those of configs; in place of what cannot be read, what is wrong with it."""
    place = 0
    while place < len(args):
        word, equals, value = args[place].partition("=")
        word = _SHORT_OPTIONS.get(word, word)
        place += 1
        if not word.startswith("--"):
            yield f"{word!r} belongs to no option: write --GROUP.OPTION VALUE, such as --data.path clicks.tsv"
            return
        if not equals and place < len(args) and not args[place].startswith("--"):
            value, place = args[place], place + 1
        elif not equals:
            value = None  # type: ignore[assignment]
        if word == "--config" and value is not None:
            yield from _config(value)
        else:
            yield _Given(word[2:].removesuffix("+"), value)


def _config(file: str) -> Iterator[_Given | str]:
    path = Path(file).expanduser()
    is_text = "\n" in file  # of a checkpoint, or with the names of earlier options
    try:
        content = yaml.safe_load(file if is_text else path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        yield f"{file}{where} is no YAML: {getattr(error, 'problem', None) or error}"
        return
    except UnicodeDecodeError:
        yield f"{file} is no YAML: it is not in UTF-8"
        return
    except OSError as error:
        yield f"--config {file}: {error.strerror}"
        return
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield _Given(str(key), value, "--config" if is_text else file, str(key))
    elif content is not None:
        yield f"{file} holds no options: a config is like the files in configs/, such as data: {{path: clicks.tsv}}"


class _Options:
    """The options of a parser: which there are, and what they take."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        self.flags = {
            flag[2:].removesuffix("+"): action
            for action in parser._actions
            for flag in action.option_strings
            if flag.startswith("--")
        }
        named = {one.dest: one for one in self.flags.values() if not one.dest.endswith(".help")}
        self.groups = {name for name in named if any(other.startswith(f"{name}.") for other in named)}
        self.actions = {dest: action for dest, action in named.items() if dest not in self.groups}
        self.classes = {dest: base for dest, action in self.actions.items() if (base := base_class(type_hint(action)))}
        self.group_helps = [f"{group}.help" for group in parser.groups or ()]
        self.chosen: dict[str, str] = {}
        self.misplaced: set[str] = set()
        for file in parser.default_config_files:
            for given in _config(str(file)):
                if isinstance(given, _Given):
                    list(self.parts_of(given))

    def parts_of(self, given: _Given) -> Iterator[_Given]:
        """An option, or those inside it: of a group, of a class and its arguments, or of a list of these."""
        slot = self._slot(given.key)
        is_list = isinstance(given.value, list) and given.key == slot and takes_list(type_hint(self.actions[slot]))
        for number, value in enumerate(given.value if is_list else [given.value]):
            place = f"{given.place}[{number}]" if is_list else given.place
            if slot is not None and given.key == slot and (value is None or isinstance(value, bool)):
                self.chosen[slot] = "null" if value is None else str(value).lower()
            if slot is not None and given.key in (slot, f"{slot}.class_path") and isinstance(value, str):
                self.chosen[slot] = value
                yield given._replace(key=slot, value=value, place=place)
            elif isinstance(value, Mapping) and (given.key == slot or given.key not in self.actions):
                for name in sorted(value, key=lambda name: name != "class_path"):  # which the others depend on
                    inside = given.key if name == "init_args" and slot else f"{given.key}.{name}"
                    if given.key == slot and "class_path" in value and name not in _PARTS_OF_CLASS:
                        self.misplaced.add(f"{place}.{name}")
                    yield from self.parts_of(_Given(inside, value[name], given.file, f"{place}.{name}"))
            else:
                key = given.key.replace(f"{slot}.init_args.", f"{slot}.") if slot else given.key
                yield given._replace(key=key, value=value, place=place)

    def fault(self, given: _Given) -> str | None:
        """What is wrong with an option that is given, None where it is right."""
        slot = self._slot(given.key)
        if slot is not None and given.key in (slot, f"{slot}.help"):
            return self._class_fault(slot, given)
        if given.key in self.groups:
            if given.file is None and str(given.value).endswith((".yaml", "}")):  # a config of the group alone
                return None
            return f"{given.named} is a group of options: give {given.key}.OPTION a value"
        if slot is not None and given.key not in self.flags:
            return self._argument_fault(slot, given)
        action = self.flags.get(given.key) if given.file is None else self.actions.get(given.key)
        if action is None:
            return given.unknown("", self._all_keys())
        if given.value is None and given.file is None and action.nargs != 0 and given.key != "print_config":
            return f"{given.named} needs a value"
        return _value_fault(given, action)

    def _slot(self, key: str) -> str | None:
        return next((slot for slot in self.classes if key == slot or key.startswith(f"{slot}.")), None)

    def _all_keys(self) -> list[str]:
        return [
            *self.flags,
            *self.group_helps,
            *(f"{slot}.{name}" for slot in self.chosen for name in self._arguments(slot)),
        ]

    def _arguments(self, slot: str) -> dict[str, Action]:
        chosen = find_class(self.classes[slot], self.chosen.get(slot, ""))
        return class_options(chosen) if isinstance(chosen, type) else {}

    def _class_fault(self, slot: str, given: _Given) -> str | None:
        if given.value is None and given.file is None:
            return None if given.key.endswith(".help") else f"{given.named} needs a value"
        base = self.classes[slot]
        if not isinstance(given.value, str):
            return _value_fault(given, self.actions[slot])
        if isinstance(found := find_class(base, given.value), type):
            return None
        if not given.key.endswith(".help") and _accepts(type_hint(self.actions[slot]), given):
            return None  # such as true in place of a logger
        names = [cls.__name__ for cls in known_classes(base)]
        hint = did_you_mean(given.value.rpartition(".")[2], names) or f"; there are {', '.join(names)}"
        return f"{given.named} {given.value}: {found}{hint}"

    def _argument_fault(self, slot: str, given: _Given) -> str | None:
        name = given.key[len(slot) + 1 :].partition(".")[0]
        own, chosen = self._arguments(slot), self.chosen.get(slot, "")
        if chosen in ("true", "false", "null"):
            return f"{given.named} belongs to no class: --{slot} is {chosen}"
        if not own:  # the class is not known, or takes what it likes
            return None
        if name == "class_path":
            return f"{given.named} must be the name of a class, got {given.value!r}"
        if (action := own.get(name)) is None:
            others = classes_with(name, self.classes[slot])
            hint = f"; it is one of {alternatives(others)}" if others else ""
            return given.unknown(f" of {chosen.rpartition('.')[2]}", [f"{slot}.{key}" for key in own], hint)
        if given.place in self.misplaced:
            return f"{given.named} belongs under {slot}.init_args, beside {slot}.class_path"
        if given.value is None and given.file is None:
            return f"{given.named} needs a value"
        return _value_fault(given, action) if "." not in given.key[len(slot) + 1 :] else None


def _accepts(hint: Any, given: _Given) -> bool:
    return accepts(hint, given.value, is_text=given.file is None)


def _value_fault(given: _Given, action: Action) -> str | None:
    hint = type_hint(action)
    if action.nargs == 0 or given.value is None or _accepts(hint, given):
        return None
    closest = did_you_mean(str(given.value), choices_of(hint))
    return f"{given.named} must be {described(hint)}, got {given.value!r}{closest}"
