"""The signals that stop a run after a checkpoint instead of at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

# Ctrl-C, a cluster's SIGTERM or SIGUSR1, a terminal that was closed, and SIGUSR2 where a scheduler uses it.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGUSR2")
DEFAULT_HANDLERS = (signal.SIG_DFL, signal.default_int_handler)


class StopSignals:
    """From `catch` to `release` the first signal only sets `received`, to its number; the second one acts at once.

    A scheduler's own handler, such as submitit's, which puts the job in the queue again, is kept for after the
    checkpoint: `scheduler_handler`.
    """

    last: ClassVar[signal.Signals | None] = None  # that any of this process received

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.scheduler_handler: Callable[[int, Any], object] | None = None  # of the signal that was received
        self._earlier: dict[int, Any] = {}  # handlers from before

    def catch(self) -> None:
        """Catches what would end the process or reach a scheduler, but no signal that is ignored, as by nohup."""
        if self._earlier or threading.current_thread() is not threading.main_thread():
            return  # it does already; Python lets no other thread handle signals
        for number in (signal.Signals[name] for name in NAMES if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if handler in DEFAULT_HANDLERS or (callable(handler) and number.name in ("SIGUSR1", "SIGUSR2")):
                self._earlier[number] = signal.signal(number, self._on_signal)

    def release(self) -> None:
        """Puts the earlier handlers back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.received = StopSignals.last = signal.Signals(number)
        if self._earlier[number] not in DEFAULT_HANDLERS:
            self.scheduler_handler = self._earlier[number]
        self.release()
        # Not print: the signal may have come in the middle of one.
        with contextlib.suppress(OSError):
            os.write(1, f"\n{self.received.name}: stopping soon, with a checkpoint (once more: at once)\n".encode())
