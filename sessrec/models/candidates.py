"""Which items may be recommended, by files and lists of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.text import counted


class ItemList(NamedTuple):
    """Item ids that an option names."""

    option: str
    """Option that was given, such as ``--allow``."""
    item_ids: list[str]

    @classmethod
    def of_option(cls, option: str, value: str | None) -> ItemList | None:
        """The ids of a file, one a line, or ids with commas between them; None where the option is not given.

        Raises:
            SessRecError: If there are none, or the file cannot be read as text.
        """
        if value is None:
            return None
        file = Path(value)
        try:
            is_file = file.is_file()
            item_ids = file.read_text(encoding="utf-8-sig").splitlines() if is_file else value.split(",")
        except (OSError, UnicodeDecodeError) as error:
            raise SessRecError(f"{option} {value} cannot be read as a text of item ids: {error}") from error
        found = [item_id for item_id in dict.fromkeys(item_ids) if item_id]
        if not found:
            raise SessRecError(f"{option} {value!r} has no item id: give a file with one id a line, or ids: 10,25")
        return cls(option, found)

    def note(self, vocabulary: Vocabulary) -> str:
        """How many of the ids the model does not know, as a sentence; empty where it knows all.

        Raises:
            SessRecError: If it knows none.
        """
        unknown = [item_id for item_id in self.item_ids if vocabulary.index_of([item_id])[0] < 0]
        if len(unknown) == len(self.item_ids):
            raise SessRecError(
                f"{self.option}: none of {counted(len(unknown), 'item id')}, such as {unknown[0]!r}, is known to the "
                "model; is it the name of a file that is not there?"
            )
        if not unknown:
            return ""
        named = f"{len(unknown):,} of {counted(len(self.item_ids), 'item id')}"
        return f"{self.option}: {named} are unknown to the model, such as {unknown[0]!r}"


def candidates_of_options(
    vocabulary: Vocabulary, allow: ItemList | None, exclude: ItemList | None
) -> tuple[Tensor | None, list[str]]:
    """Which items ``--allow`` and ``--exclude`` leave, bool, shape (N,), None for all, and notes on unknown ids.

    Raises:
        SessRecError: If none is left.
    """
    notes = [text for given in (allow, exclude) if given is not None and (text := given.note(vocabulary))]
    allowed = vocabulary.mask(None if allow is None else allow.item_ids, () if exclude is None else exclude.item_ids)
    if allowed is not None and not allowed.any():
        raise SessRecError("--allow and --exclude leave no item of the model")
    return None if allowed is None else torch.from_numpy(allowed), notes
