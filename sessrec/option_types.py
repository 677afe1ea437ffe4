"""What an option takes: its type in words, and the classes that it can name."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from argparse import Action
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from sessrec.suggestions import alternatives

_IN_WORDS: dict[Any, list[str]] = {
    int: ["a whole number"],
    float: ["a number"],
    bool: ["true", "false"],
    str: ["text"],
    type(None): ["null"],
}
_EXAMPLES = {int: "[100, 50]", float: "[0.1, 0.2]", str: '[a, "1"]'}
_PLAIN = ("builtins", "datetime", "os", "pathlib", "typing")


def type_hint(action: Action) -> Any:
    """The type of an option's value."""
    return getattr(action, "_typehint", None) or action.type or str


def described(hint: Any) -> str:
    """A type in words.

    Example:
        >>> described(list[int] | None), described(bool), described(Literal["bpr", "top1"])
        ('a list such as [100, 50] or null', 'true or false', 'bpr or top1')
    """
    return alternatives(sorted(dict.fromkeys(_forms(hint)), key=lambda form: form == "null"))


def _forms(hint: Any) -> list[str]:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [str(choice) for choice in parts]
    if origin in (Union, types.UnionType):
        return [form for part in parts for form in _forms(part)]
    if origin in (dict, Mapping):
        return ["a mapping such as {name: value}"]
    if parts:
        return [f"a list such as {_EXAMPLES.get(parts[0], '[a, b]')}"]
    return _IN_WORDS.get(hint, [f"a {getattr(hint, '__name__', hint)}"])


def choices_of(hint: Any) -> list[str]:
    """The values that a type names one by one.

    Example:
        >>> choices_of(Literal["bpr", "top1"] | None)
        ['bpr', 'top1']
    """
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    is_union = get_origin(hint) in (Union, types.UnionType)
    return [choice for part in get_args(hint) for choice in choices_of(part)] if is_union else []


def accepts(hint: Any, value: Any, is_text: bool) -> bool:
    """Whether a value is of a type.

    Args:
        hint: The type.
        value: The value.
        is_text: Whether the value is still text, as on the command line.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        if is_text:
            parser.parse_args([f"--value={value}"])
        else:
            parser.parse_object({"value": value})
    except (ArgumentError, TypeError, ValueError):
        return False
    return True


def base_class(hint: Any) -> type | None:
    """The class whose subclasses an option takes, one or a list; None where it takes plain values.

    Example:
        >>> base_class(list[ArgumentParser] | None), base_class(list[int] | None)
        (<class 'jsonargparse._core.ArgumentParser'>, None)
    """
    if isinstance(hint, type) and get_origin(hint) is None:
        return None if hint.__module__ in _PLAIN else hint
    return next((base for part in get_args(hint) if (base := base_class(part))), None)


def takes_list(hint: Any) -> bool:
    """Whether an option takes a list of values."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(map(takes_list, parts))
    return isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)


def find_class(base: type, name: str) -> type | str:
    """The subclass of a name or import path; what is wrong with it where there is none."""
    module, _, last = name.rpartition(".")
    if not module:
        return {cls.__name__: cls for cls in _subclasses(base)}.get(name, "no such class")
    try:
        found = getattr(importlib.import_module(module), last)
    except ImportError as error:
        return str(error)
    except AttributeError:
        return "no such class in the module"
    return found if isinstance(found, type) and issubclass(found, base) else f"no {base.__name__}"


def known_classes(base: type) -> list[type]:
    """The subclasses to choose from: of each package those that it offers by their name."""
    found: list[type] = []
    for cls in _subclasses(base):
        package = sys.modules.get(cls.__module__.rpartition(".")[0])
        is_offered = package is None or getattr(package, cls.__name__, None) is cls
        found += [cls] if is_offered and cls is not base and not inspect.isabstract(cls) else []
    return sorted(set(found), key=attrgetter("__name__"))


def class_options(cls: type) -> dict[str, Action]:
    """The options of a class, with those that its bases take, by their names."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    return {action.dest: action for action in parser._actions if action.dest != "help" and "." not in action.dest}


def classes_with(option: str, base: type) -> list[str]:
    """Names of the subclasses that have an option."""
    return [cls.__name__ for cls in known_classes(base) if option in class_options(cls)]


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    for cls in base.__subclasses__():
        yield from _subclasses(cls)
