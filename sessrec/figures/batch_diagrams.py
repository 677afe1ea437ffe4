"""Pictures that explain sessions, their session-parallel batches and their evaluation, on sessions of a real log."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from sessrec.data.session_parallel import LaneGrid, Window
from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.figures.drawing import LINE, MARGIN, SIZE, Box, Drawing, printable, shortened, text_width, wrapped
from sessrec.figures.style import PALETTE, STYLE
from sessrec.text import counted

_COLOURS = (*PALETTE[:6],)  # of sessions: those that can be told apart when they are thinned with white
_GREY = "#777777"
_WIDEST = 11.0  # inches
_LANE = 0.74  # inches from lane to lane
_ROW = 0.42  # inches from session to session
_NOTE = 9.0  # points of notes and of the ids in chips


def protocol_figure(
    item_ids: Sequence[str],
    top: Sequence[Sequence[str]],
    ranks: Sequence[float | None],
    n_items: int,
    cutoff: int = 20,
) -> Figure:
    """Draw how one session is evaluated: a rank at every position, and what Recall and MRR make of the ranks.

    Args:
        item_ids: Item id of each event of the session, in order, at least two.
        top: The model's best items at each position that has a next item, best first; one list fewer than events.
        ranks: Rank of the next item at each of these positions, from 1; None where it was no candidate.
        n_items: Number N of items that are ranked.
        cutoff: Length K of the recommendation list.

    Returns:
        One line a position, and below them Recall@K and MRR@K of this session.

    Raises:
        SessRecError: If there is no position, the lengths do not go together or a rank is none of 1 to N.
    """
    _check_session(item_ids, top, ranks, n_items, cutoff)
    is_hit = [rank is not None and rank <= cutoff for rank in ranks]
    gains = [1 / rank if rank is not None and rank <= cutoff else 0.0 for rank in ranks]
    n_positions = len(ranks)
    with rc_context(STYLE):
        chip = _chip_width([*item_ids, *itertools.chain.from_iterable(top)], 1.0)
        n_top = min(max(map(len, top)), max(1, int(3.4 / (chip + 0.06))))
        widths = [0.65, 0.0, max(1.1, n_top * (chip + 0.06)), max(chip, 0.6), 0.95, 0.6, 0.75]
        room = _WIDEST - 2 * MARGIN - sum(widths) - 0.15 * (len(widths) - 1)
        widths[1] = min(room, max(1.5, n_positions * (chip + 0.06)))
        gap = max(0.15, (7 - 2 * MARGIN - sum(widths)) / (len(widths) - 1))  # a figure is 7 inches wide at least
        lefts = [MARGIN + sum(widths[:column]) + column * gap for column in range(len(widths))]
        hits = f"{sum(is_hit)} of {counted(n_positions, 'position')}"
        title = f"The next item is among the top {cutoff} at {hits} of this session"
        drawing = Drawing(lefts[-1] + widths[-1] + MARGIN, title)
        names = ["position", "history so far", f"the model's top {n_top}", "target", f"rank among {n_items:,} items"]
        _header(drawing, lefts, widths, [*names, f"in top {cutoff}?", "reciprocal rank"])
        for position, (rank, gain) in enumerate(zip(ranks, gains, strict=True)):
            target, y = item_ids[position + 1], drawing.lowest + 0.09
            colour = PALETTE[2] if is_hit[position] else PALETTE[1]
            _history(drawing, lefts[1], y, widths[1], chip, item_ids[: position + 1], _GREY)
            for place, item in enumerate(top[position][:n_top]):
                box = Box(lefts[2] + place * (chip + 0.06), y, chip, 0.26)
                look = (PALETTE[2], 0.3, True) if item == target else (_GREY, 0.1, False)
                drawing.chip(box, item, *look)
            drawing.chip(Box(lefts[3], y, chip, 0.26), target, colour)
            words = [str(position + 1), _rank_text(rank), "hit" if is_hit[position] else "miss", _gain_text(gain)]
            for column, word in zip((0, 4, 5, 6), words, strict=True):
                x = lefts[column] + widths[column] / 2
                drawing.text(x, y + 0.13 - SIZE * LINE / 2, [word], bold=column == 5, align="center")
        _means(drawing, is_hit, gains, cutoff)
        return drawing.finished()


def _check_session(
    item_ids: Sequence[str],
    top: Sequence[Sequence[str]],
    ranks: Sequence[float | None],
    n_items: int,
    cutoff: int,
) -> None:
    if len(item_ids) < 2 or not len(top) == len(ranks) == len(item_ids) - 1:
        raise SessRecError(
            f"a session of {len(item_ids)} events needs a top list and a rank for each event but the last, at least "
            f"one; got {len(top)} lists and {len(ranks)} ranks"
        )
    if strange := [rank for rank in ranks if rank is not None and not 1 <= rank <= n_items]:
        raise SessRecError(f"a rank among {n_items} items is from 1 to {n_items}, got {strange[0]:g}")
    if cutoff < 1:
        raise SessRecError(f"a cutoff must be at least 1, got {cutoff}")


def _header(drawing: Drawing, lefts: Sequence[float], widths: Sequence[float], names: Sequence[str]) -> None:
    """Names of columns in bold, on one line at their feet, and a line below."""
    top = drawing.lowest + 0.18
    lines = [wrapped(name, width + 0.12, _NOTE, bold=True) for name, width in zip(names, widths, strict=True)]
    bottom = top + max(map(len, lines)) * _NOTE * LINE
    for left, width, words in zip(lefts, widths, lines, strict=True):
        drawing.text(left + width / 2, bottom - len(words) * _NOTE * LINE, words, _NOTE, True, "center")
    drawing.axes.plot([MARGIN, drawing.width - MARGIN], [bottom + 0.05] * 2, color=_GREY, linewidth=0.8)
    drawing.lowest = bottom + 0.05


def _rank_text(rank: float | None) -> str:
    if rank is None:
        return "no candidate"
    return f"{rank:,.0f}" if rank == int(rank) else f"{rank:,.1f}"


def _gain_text(gain: float) -> str:
    return f"{gain:.3f}" if gain else "0"


def _means(drawing: Drawing, is_hit: Sequence[bool], gains: Sequence[float], cutoff: int) -> None:
    """The session's Recall and MRR, worked out."""
    n_positions, y = len(gains), drawing.lowest + 0.3
    drawing.axes.plot([MARGIN, drawing.width - MARGIN], [y - 0.15] * 2, color=_GREY, linewidth=0.8)
    terms = " + ".join(map(_gain_text, gains)) if n_positions <= 6 else _gain_text(sum(gains))
    hits = f"hits at {sum(is_hit)} of {counted(n_positions, 'position')}"
    summed = f"({terms}) / {n_positions}" if 1 < n_positions <= 6 else f"{terms} / {n_positions}"
    for name, mean, words in (
        ("Recall", sum(is_hit) / n_positions, f"{hits}: {sum(is_hit)} / {n_positions}"),
        ("MRR", sum(gains) / n_positions, f"mean reciprocal rank, 0 for a miss: {summed}"),
    ):
        result = f"{name}@{cutoff} = {mean:.4f}"
        drawing.text(MARGIN, y, [result], SIZE + 1, bold=True)
        left = MARGIN + text_width(f"Recall@{cutoff} = 0.0000", SIZE + 1, bold=True) + 0.2
        y = drawing.text(left, y + LINE / 2, wrapped(words, drawing.width - MARGIN - left)) + 0.06
    words = "Those of a test part are the same means, over the positions of all its sessions."
    drawing.text(MARGIN, y + 0.04, wrapped(words, drawing.width - 2 * MARGIN, _NOTE), _NOTE)


def _chip_width(item_ids: Sequence[str], most: float) -> float:
    """Width of a chip that holds any of the ids, within bounds."""
    widest = max(text_width(printable(item_id), _NOTE, bold=True) for item_id in item_ids)
    return min(most, max(0.36, widest + 0.14))


def _history(
    drawing: Drawing, left: float, y: float, width: float, chip: float, item_ids: Sequence[str], colour: str
) -> float:
    """Draw the latest events as chips, as many as have room, behind the number of those before; the right end."""
    n_shown = max(1, int((width + 0.06) / (chip + 0.06)))
    if n_shown < len(item_ids):
        n_shown = max(1, int((width + 0.06 - 0.45) / (chip + 0.06)))
        left += 0.45
        drawing.text(left - 0.06, y + 0.13 - _NOTE * LINE / 2, [f"+{len(item_ids) - n_shown} …"], _NOTE, align="right")
    for item in item_ids[-n_shown:]:
        drawing.chip(Box(left, y, chip, 0.26), item, colour)
        left += chip + 0.06
    return left - 0.06


def session_parallel_figure(sessions: Sessions, item_ids: Sequence[str], n_lanes: int = 4, n_steps: int = 8) -> Figure:
    """Draw the first session-parallel mini-batches of an epoch, as training takes them.

    Args:
        sessions: Training sessions, in their order.
        item_ids: Item id of each item index.
        n_lanes: Lanes B, at most 24.
        n_steps: Steps to show, at most 12; fewer where the epoch has fewer.

    Returns:
        Lanes as rows and steps as columns; each cell with its input and target, in the colour of its session, and with
        a bar where the hidden state is reset.

    Raises:
        SessRecError: If there is no session, or the grid would be too large to read.
    """
    if not 1 <= n_lanes <= 24 or not 1 <= n_steps <= 12:
        raise SessRecError(f"the picture holds 1 to 24 lanes and 1 to 12 steps, not {n_lanes} and {n_steps}")
    if not len(sessions):
        raise SessRecError("there are no sessions to draw")
    grid = LaneGrid(sessions, n_lanes)
    window = grid.window(0, min(n_steps, grid.n_steps))
    with rc_context(STYLE):
        items = np.unique(np.stack([window.inputs[window.live], window.targets[window.live]]))
        widest = max(text_width(f"→ {printable(item_ids[item])}", SIZE + 0.5, bold=True) for item in items)
        label = 0.75  # inches for the names of lanes
        cell = min(max(0.85, widest + 0.24), 1.3, (_WIDEST - 2 * MARGIN - label) / window.n_steps)
        place = f"{counted(window.n_steps, 'step')} of {counted(n_lanes, 'lane')}"
        n_begun = counted(int(window.starts.sum()), "session")
        drawing = Drawing(
            max(7.0, 2 * MARGIN + label + window.n_steps * cell),
            f"A lane whose session ends takes the next one: {n_begun} in {place}",
        )
        left = MARGIN + label + (drawing.width - 2 * MARGIN - label - window.n_steps * cell) / 2
        top = drawing.lowest + 0.2
        for step in range(window.n_steps):
            drawing.text(left + (step + 0.5) * cell, top, [f"step {step + 1}"], _NOTE, bold=True, align="center")
        top = drawing.lowest + 0.06
        for lane in range(n_lanes):
            middle = top + lane * _LANE + 0.33 - SIZE * LINE / 2
            drawing.text(left - 0.1, middle, [f"lane {lane + 1}"], bold=True, align="right")
        names = {int(item): _cell_name(item_ids[item], cell - 0.24) for item in items}
        _cells(drawing, window, names, left, top, cell)
        _resets(drawing, window, left, cell)
        return drawing.finished()


def _cell_name(item_id: str, width: float) -> str:
    """An id as it fits into a cell both as the input and, smaller but behind an arrow, as the target."""
    name = shortened(item_id, width, SIZE + 0.5, bold=True)
    room = width - text_width("→ ", _NOTE)
    return name if text_width(name, _NOTE) <= room else shortened(item_id, room, _NOTE)


def _cells(drawing: Drawing, window: Window, names: Mapping[int, str], left: float, top: float, cell: float) -> None:
    """Draw all cells; those of one session touch each other."""
    numbers = np.cumsum(window.starts.numpy().ravel()).reshape(window.starts.shape)  # sessions begin in this order
    session = "session" if text_width(f"session {numbers.max()}", 8) < cell - 0.24 else "s."
    for lane in range(window.live.shape[1]):
        number, colour = 0, ""
        for step in range(window.n_steps):
            y, x = top + lane * _LANE, left + step * cell
            if not window.live[step, lane]:
                drawing.text(x + cell / 2, y + 0.26, ["empty"], _NOTE, align="center", colour=_GREY)
                continue
            begins = bool(window.starts[step, lane])
            if begins:
                number, before = int(numbers[step, lane]), colour
                colour = _COLOURS[number % len(_COLOURS)]
                if colour == before:  # neighbours differ
                    colour = _COLOURS[(number + 1) % len(_COLOURS)]
            goes_on = step + 1 < window.n_steps and bool(window.live[step + 1, lane] & ~window.starts[step + 1, lane])
            box = Box(x + 0.04 * begins, y, cell - 0.04 * begins - 0.04 * (not goes_on), 0.66)
            drawing.rectangle(box, colour)
            name, target = (names[int(part[step, lane])] for part in (window.inputs, window.targets))
            drawing.text(box.centre, y + 0.18, [name], SIZE + 0.5, bold=True, align="center")
            drawing.text(box.centre, y + 0.40, [f"→ {target}"], _NOTE, align="center")
            if begins:
                drawing.axes.plot([box.left + 0.03] * 2, [y + 0.02, box.bottom - 0.02], color="black", linewidth=3.5)
                drawing.text(box.centre, y + 0.03, [f"{session} {number}"], 8, align="center")
    drawing.lowest = max(drawing.lowest, top + window.live.shape[1] * _LANE - 0.08)


def _resets(drawing: Drawing, window: Window, left: float, cell: float) -> None:
    """Which live lanes are reset at each step, and what the marks mean."""
    y = drawing.lowest + 0.14
    drawing.text(left - 0.1, y, ["resets"], bold=True, align="right")
    for step in range(window.n_steps):
        live = window.starts[step][window.live[step]].int().tolist()
        mask = "".join(map(str, live))
        words = mask if text_width(mask) < cell - 0.05 else f"{sum(live)} of {len(live)}"
        drawing.text(left + (step + 0.5) * cell, y, [words], align="center")
    words = (
        "In bold the input, behind the arrow the target: the next item of the same session. Cells of one session "
        "touch, and its hidden state goes on from step to step. A black bar marks a reset: a new session begins with "
        "a state of 0. All lanes of a step are one mini-batch, and each lane's negatives include the targets of the "
        "other lanes."
    )
    drawing.text(MARGIN, drawing.lowest + 0.12, wrapped(words, drawing.width - 2 * MARGIN, _NOTE), _NOTE)


def traditional_figure(sessions: Sessions, item_ids: Sequence[str], n_shown: int = 6) -> Figure:
    """Draw the same sessions as a user-item matrix and as sequences.

    Args:
        sessions: Sessions of a log.
        item_ids: Item id of each item index.
        n_shown: Sessions to show, at most 20; short ones that share items, where there are such. One more gives the
            first click of a newcomer.

    Returns:
        Left the matrix, right the sequences, each session in the same line.

    Raises:
        SessRecError: If there are too few sessions, or too many to show.
    """
    if not 1 <= n_shown <= 20 or len(sessions) < n_shown + 1:
        raise SessRecError(f"{n_shown} of {len(sessions)} sessions cannot be shown: 1 to 20, and one more in the log")
    chosen = _sessions_that_share(sessions, n_shown + 1)
    *shown, newcomer = [[item_ids[item] for item in sessions[session]] for session in chosen]
    with rc_context(STYLE):
        title = "A user-item matrix keeps what was clicked; a session keeps the order, which tells what comes next"
        drawing = Drawing(_WIDEST, title)
        matrix, sequences, top = MARGIN + 0.8, 6.05, drawing.lowest + 0.2
        heads = [(matrix, "Traditional: users and items"), (sequences, "Session-based: what comes next?")]
        for x, words in heads:
            below = drawing.text(x, top, [words], SIZE + 1.5, bold=True)
        below = _matrix(drawing, matrix, below, shown)
        chip = _chip_width(list(itertools.chain.from_iterable(shown)), 0.95)
        for number, row in enumerate([*shown, newcomer[:1]]):
            y = below + number * _ROW
            _sequence(drawing, sequences, y + 0.04, row, chip, _COLOURS[number % len(_COLOURS)])
            for x, kind in ((matrix, "user"), (sequences, "session")):
                words = f"{kind} {number + 1}" if number < n_shown else f"new {kind}"
                drawing.text(x - 0.1, y + 0.17 - _NOTE * LINE / 2, [words], _NOTE, align="right")
        _readings(drawing, [x for x, _ in heads], len(item_ids))
        return drawing.finished()


def _matrix(drawing: Drawing, left: float, top: float, shown: Sequence[Sequence[str]]) -> float:
    """Draw the user-item matrix, with an empty row for a new user; the upper edge of its first row."""
    columns = _matrix_columns(shown)
    others = {item for row in shown for item in row} - {*columns}
    names = [shortened(item, 1.0, _NOTE) for item in columns] + ([f"{len(others)} others"] if others else [])
    width = min(0.5, (4.95 - left) / len(names))
    widest = max(text_width(name, _NOTE) for name in names)
    is_flat, below = widest < width, top + 0.1 + max(widest, _NOTE * LINE)
    for column, name in enumerate(names):
        place = left + (column + 0.5) * width, below - _NOTE * LINE * is_flat
        drawing.text(*place, [name], _NOTE, align="center", rotation=0 if is_flat else 90)
    for number, row in enumerate([*shown, []]):
        first = Box(left, below + 0.08 + number * _ROW, width, 0.34)
        counts = [int(item in row) for item in columns] + ([len(others & {*row})] if others else [])
        _matrix_row(drawing, first, counts, bool(others), _COLOURS[number % len(_COLOURS)])
    return below + 0.08


def _readings(drawing: Drawing, lefts: Sequence[float], n_items: int) -> None:
    """What each of the two views can tell."""
    matrix = (
        "A filled square: the user clicked the item. The order of the clicks is lost, and a new user's row is empty: "
        "nothing to compare. (These sessions were chosen for the items that they share.)"
    )
    sequence = (
        f"The clicks in their order; the model ranks all {n_items:,} items as the next one. Nothing need be known of "
        "the visitor: a new session has a next item after its first click."
    )
    top = drawing.lowest + 0.14
    for left, words in zip(lefts, (matrix, sequence), strict=True):
        drawing.text(left, top, wrapped(words, 4.6, _NOTE), _NOTE)


def _matrix_columns(shown: Sequence[Sequence[str]], most: int = 13) -> list[str]:
    """Items of the sessions in a fixed order; where they are too many, those in most sessions."""
    n_sessions = Counter(item for row in shown for item in dict.fromkeys(row))
    return sorted(item for item, _ in n_sessions.most_common(most))


def _matrix_row(drawing: Drawing, first: Box, counts: Sequence[int], has_others: bool, colour: str) -> None:
    """Draw a row of the matrix; the column of all other items has a number."""
    for column, count in enumerate(counts):
        box = Box(first.left + column * first.width + 0.02, first.top, first.width - 0.04, first.height)
        drawing.rectangle(box, colour if count else "#BBBBBB", 0.7 if count else 0.0)
        if count and has_others and column == len(counts) - 1:
            drawing.text(box.centre, box.middle - _NOTE * LINE / 2, [str(count)], _NOTE, align="center")


def _sequence(drawing: Drawing, left: float, y: float, row: Sequence[str], chip: float, colour: str) -> None:
    """Draw a session's latest clicks, and the question what comes next."""
    right = _WIDEST - MARGIN - 0.36
    end = _history(drawing, left, y, right - 0.25 - left, chip, row, colour)
    drawing.arrow((end + 0.02, y + 0.13), (end + 0.25, y + 0.13))
    drawing.chip(Box(end + 0.26, y, 0.34, 0.26), "?", "#222222", 0.0, bold=True)


def _sessions_that_share(sessions: Sessions, n_wanted: int, n_looked_at: int = 2000) -> list[int]:
    """Some short sessions among the first of a log, one after the other the one that shares most with those before.

    Returns:
        Indices in the order of the log.
    """
    lengths = np.diff(sessions.offsets[: n_looked_at + 1])
    few, many = (3, 4) if np.count_nonzero((lengths >= 3) & (lengths <= 4)) >= n_wanted else (0, np.inf)
    waiting = np.flatnonzero((lengths >= few) & (lengths <= many)).tolist()
    chosen = [waiting.pop(0)]
    while len(chosen) < n_wanted:
        known = {item for session in chosen for item in sessions[session].tolist()}
        taken = {tuple(sessions[session].tolist()) for session in chosen}
        gains = []
        for session in waiting:
            items = sessions[session].tolist()
            shared, new = len(known & {*items}), len({*items} - known)
            gains.append((shared - 0.5 * new) if tuple(items) not in taken else -100)
        chosen.append(waiting.pop(int(np.argmax(gains))))
    return sorted(chosen)
