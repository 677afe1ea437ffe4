"""Session-based recommendation: from anonymous click sessions, predict the next item.

Shapes in docstrings and comments use these letters: **S** sessions, **L** the longest session of a batch, **P**
positions (events with a next item), **B** lanes of the session-parallel batch, **N** items, **C** candidates of a
training step (targets, then negatives), **H** hidden size. The letters never name variables.
"""

__version__ = "0.2.0"
