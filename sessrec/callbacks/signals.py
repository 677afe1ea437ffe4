"""Stop a fit at the user's or the scheduler's signal, with nothing lost."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from sessrec.errors import SessRecError

# a scheduler announces the end of its time by SIGTERM or, where it is told to, by SIGUSR1, which Windows lacks
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class StoppedError(SessRecError):
    """A fit that was stopped by the signal of a number, and saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as a shell gives it for a process that the signal ended


class StopSignals:
    """Notes the first SIGINT, SIGTERM or SIGUSR1; a second one ends the process at once, as if nobody had listened."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals over; only a main thread can, so that elsewhere they do what they did."""
        self.received = None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def leave(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        # not by print, which may be at work in the interrupted code
        os.write(2, f"\n{self.received.name}: the fit is saved and stops; once more stops it at once\n".encode())
