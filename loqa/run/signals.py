"""The signals that stop a run after a checkpoint instead of at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

# Ctrl-C, a cluster's SIGTERM or SIGUSR1, a terminal that was closed, and SIGUSR2 where a scheduler uses it.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class StopSignals:
    """From `catch` to `release` the first signal only sets `received`, to its number; the second one acts at once.

    A scheduler's own handler, such as submitit's, which puts the job in the queue again, is kept for after the
    checkpoint: `scheduler_handler`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._earlier: dict[int, Any] = {}  # handlers from before

    def catch(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one handle signals
            for number in SIGNALS:
                handler = signal.getsignal(number)
                # Not one that the process was started to ignore, as by nohup, nor one that somebody else handles.
                default = handler in (signal.SIG_DFL, signal.default_int_handler)
                if default or _is_scheduler_handler(number, handler):
                    self._earlier[number] = signal.signal(number, self._on_signal)

    def release(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.received = number
        self.release()
        # Not print: the signal may have come in the middle of one.
        with contextlib.suppress(OSError):
            os.write(1, f"\n{self.name}: stopping soon, with a checkpoint (once more: at once)\n".encode())

    @property
    def name(self) -> str:
        """The name of the signal that was received."""
        return signal.Signals(self.received).name

    @property
    def scheduler_handler(self) -> Callable[[int, Any], object] | None:
        """The scheduler's own handler of the signal that was received, or None."""
        handler = self._earlier.get(self.received)
        return handler if _is_scheduler_handler(self.received, handler) else None


def _is_scheduler_handler(number: int, handler: Any) -> bool:
    return callable(handler) and signal.Signals(number).name in ("SIGUSR1", "SIGUSR2")
