"""docs/results.md: every table has its command, and what is said below it is so."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

SECTIONS = re.split(r"^## ", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split("\n")[0])
def test_every_row_has_its_command(section: str) -> None:
    command = section.split("```")[1]
    configs = [word for word in command.split() if word.startswith("configs/")]
    assert all((ROOT / word).is_file() for word in configs)
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section.splitlines() if line[:2] == "| "]
    rows = rows[1:]
    assert sorted(row[0] for row in rows) == sorted(word[8:-5] for word in configs)
    scores = [float(row[3].split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    best = {place: max(float(row[place].split()[0]) for row in rows if "gru4rec" in row[0]) for place in (2, 3)}
    said = section.strip().splitlines()[-1]
    for row in rows:
        beats = "gru4rec" not in row[0] and any(float(row[place].split()[0]) > best[place] for place in (2, 3))
        assert beats == bool(re.search(rf"\b{row[0]}\b", said)), row[0]
