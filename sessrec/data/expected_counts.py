"""Compare the counts of a prepared log with published ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sessrec.data.report import DataReport
from sessrec.errors import SessRecError

_SUFFIX = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def compare_with_expected(
    expected: Mapping[str, str | int], report: DataReport, has_validation: bool = False
) -> list[str]:
    """Put the comparison into the section ``expected`` of the report of a prepared log.

    Args:
        expected: Published count of ``part_figure``, such as ``train_positions`` or ``test_sessions``: a whole number,
            or one rounded as it was published, such as ``21.509M`` or ``554.0k``.
        report: The report.
        has_validation: Whether a validation part is cut off the training part; counts of ``train`` are published for
            the whole, and are not compared then.

    Returns:
        A warning for each count that differs.

    Raises:
        SessRecError: If an expected count cannot be read, or is of a figure that the report does not have.
    """
    warnings = []
    for name, published in expected.items():
        part, _, figure = name.partition("_")
        low, high = rounded_range(str(published))
        if part == "train" and has_validation:
            report.add("expected", {name: f"{published} published with the validation part: not compared"})
            continue
        found = report.sections.get(part, {}).get(figure)
        if not isinstance(found, int):
            raise SessRecError(f"--data.expected names {name}, which is no count of the report")
        agrees = low <= found <= high
        verdict = "as" if agrees else "not as"
        report.add("expected", {name: f"{published} published, {found:,} here: {verdict} published"})
        if not agrees:
            warnings.append(
                f"{name.replace('_', ' ')}: {found:,} here, {published} published; the log or the preparation differs"
            )
    return warnings


def rounded_range(text: str) -> tuple[float, float]:
    """Least and greatest number that is written so when rounded.

    Raises:
        SessRecError: If the text is no number.

    Example:
        >>> rounded_range("554.0k"), rounded_range("20952")
        ((553950.0, 554050.0), (20952.0, 20952.0))
    """
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([kMG]?)", text)
    if match is None:
        raise SessRecError(f"--data.expected has {text!r}; write a whole number, or one such as 21.509M or 554.0k")
    unit = _SUFFIX[match[3]]
    number = float(f"{match[1]}.{match[2] or 0}") * unit
    half = unit / 10 ** len(match[2] or "") / 2 if match[3] else 0.0
    return round(number - half, 6), round(number + half, 6)
