"""The data report: what was read, what was dropped and why, and how the log was split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sessrec.errors import SessRecError


class DataReport:
    """Figures of each step of the preparation, in order, as text for people and as JSON for programs.

    ``has_times`` is False where the log's times are numbers of rows, ``cuts`` holds the time at which each later part
    begins, and ``warnings`` what looks wrong.

    Example:
        >>> report = DataReport()
        >>> report.add("read", {"source": "clicks.tsv", "events": 1234567})
        >>> print(report)
        read     source                                    clicks.tsv
                 events                                    1,234,567
    """

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, int | float | str]] = {}
        self.has_times = False
        self.cuts: dict[str, float] = {}
        self.warnings: list[str] = []

    def add(self, section: str, figures: Mapping[str, int | float | str]) -> None:
        """Add figures to a section, which is made where it does not exist."""
        self.sections.setdefault(section, {}).update(figures)

    def warn(self, warnings: Iterable[str]) -> None:
        """Add warnings, which are shown last."""
        self.warnings += warnings

    def explain(self, fault: str) -> SessRecError:
        """An error of a log of which nothing is left, with what looks wrong in it and may be the cause."""
        causes = [warning for warning in self.warnings if not re.match(r"the \w+ part has ", warning)]
        return SessRecError(f"{fault}; what looks wrong in the log: {'; '.join(causes)}" if causes else fault)

    def as_dict(self) -> dict[str, Any]:
        """Sections, split times and warnings, as JSON can hold them."""
        return {**self.sections, "has_times": self.has_times, "cuts": self.cuts, "warnings": self.warnings}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DataReport:
        """The report that `as_dict` described."""
        report, sections = cls(), dict(content)
        report.has_times, report.cuts = sections.pop("has_times"), dict(sections.pop("cuts"))
        report.warnings = list(sections.pop("warnings"))
        report.sections = {name: dict(figures) for name, figures in sections.items()}
        return report

    def __str__(self) -> str:
        lines = []
        for section, figures in self.sections.items():
            for number, (name, value) in enumerate(figures.items()):
                shown = value if isinstance(value, str) else f"{value:,}"
                lines.append(f"{section if number == 0 else '':<8} {name.replace('_', ' '):<41} {shown}")
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])
