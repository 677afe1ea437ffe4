"""Session-based recommendation: from anonymous click sessions, predict the next item.

Shapes in docstrings and comments use these letters: **S** sessions, **L** the longest session of a batch, **P**
positions (events with a next item), **B** lanes of the session-parallel batch, **N** items, **C** candidates of a
training step (targets, then negatives), **H** hidden size. The letters never name variables.
"""

import os

# on Linux, torch asks for pages of 2 MB for large tensors: looking up rows of a large item table is then faster by a
# quarter; read at torch's first tensor, and left to the user where it is set
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.2.0"
