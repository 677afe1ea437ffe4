"""Which model the words of a command choose: options that a config gives another model are not its own."""

from __future__ import annotations

from typing import Any

import yaml


def with_one_model(args: list[str]) -> list[str]:
    r"""Words of a command line that name one model: the last one, or GRU4Rec where there is none.

    What is said of models that are named before it is taken away: the parser would hand options of equal names on from
    one model to the next, such as the learning rate.

    Args:
        args: Words of a command line.

    Example:
        >>> with_one_model(["--config", "{model: {class_path: GRU4Rec, init_args: {k: 5}}}", "--model", "Markov"])
        ['--config', '{}\n', '--model', 'Markov']
    """
    named = [_named_model(args, place) for place in range(len(args))]
    name = next((one for one in reversed(named) if one), None)
    if name is None:
        return ["--model", "GRU4Rec", *args]
    words: list[str] = []
    for place, word in enumerate(args):
        own = named[place]
        if own is None or own.rpartition(".")[2] == name.rpartition(".")[2]:
            words.append(word)
        elif words and words[-1] == "--config":
            content = _content(word, may_be_file=True)
            words.append(yaml.safe_dump({key: part for key, part in content.items() if key != "model"}))
        elif words and words[-1] == "--model":
            words.pop()
    return words


def _named_model(args: list[str], place: int) -> str | None:
    """The model that a word names, as the value of an option or in a config; None where it names none."""
    option, word = args[place - 1] if place else "", args[place]
    if word.startswith(("--model=", "--model.class_path=")):
        option, _, word = word.partition("=")
    if option in ("--model", "--model.class_path"):
        model: Any = _content(word) or word
    elif option == "--config":
        model = _content(word, may_be_file=True).get("model")
    else:
        return None
    name = model.get("class_path") if isinstance(model, dict) else model
    return name if isinstance(name, str) else None


def _content(word: str, may_be_file: bool = False) -> dict[str, Any]:
    """A config that is given by its text or its file; nothing where it is none, which the parser says."""
    try:
        content = yaml.safe_load(word)
        if isinstance(content, str) and may_be_file:
            with open(content, encoding="utf-8") as stream:
                content = yaml.safe_load(stream)
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
