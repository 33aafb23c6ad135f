"""Weights & Biases: online, offline or not at all. W&B can raise anything, and may not end a training."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from loqa.run import provenance
from loqa.run.config import WandbConfig
from loqa.run.terminal import attempt, short_path

# Quiet, nothing but our numbers, and seconds to wait for the server at the start and for uploads at the end.
SETTINGS = {"silent": True, "console": "off", "disable_git": True, "x_disable_stats": True}
SETTINGS |= {"init_timeout": 20, "finish_timeout": 60, "finish_timeout_raises": True}


class WandbLog:
    """The W&B run of a training; before `start`, and after trouble, its methods do nothing."""

    def __init__(self, run_id: str | None, log_line: Callable[[str], object]):
        self.run_id, self._log_line = run_id, log_line  # W&B's name of the run; None before it has one
        self._run: Any = None
        self._path = ""  # what `wandb sync` takes

    def start(self, options: WandbConfig, directory: Path, settings: dict, rows: dict[str, np.ndarray]) -> None:
        """Starts online if that is wanted and works, otherwise offline with the rows so far, or not at all."""
        mode = os.environ.get("WANDB_MODE") or options.mode
        if mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
            self._log_line(f"W&B: disabled by {'WANDB_MODE' if mode == 'disabled' else 'WANDB_DISABLED'}")
            return
        init = partial(self._init, options, directory, settings)
        why_offline = attempt(partial(init, "online")) if mode == "online" else "as configured"
        if why_offline and (problem := attempt(partial(init, "offline"))):
            self._log_line(f"W&B could not start ({problem}); this run continues without it")
        elif why_offline:
            self._log_line(f"W&B: offline ({why_offline}). To upload this run later: wandb sync {self._path}")
            for row in zip(*rows.values(), strict=True):  # an earlier offline part may lack some
                self.log(dict(zip(rows, map(float, row), strict=True)))
        else:
            self._log_line(f"W&B: {self._run.url}")

    def _init(self, options: WandbConfig, directory: Path, settings: dict, mode: str) -> None:
        import wandb  # here, because it is slow and most runs do without

        if mode == "online":
            wandb.setup(wandb.Settings(silent=True))  # or the login would print
            if not wandb.login(prompt=False, verify=False):
                raise RuntimeError("no API key; `wandb login` saves one")
        # What the configuration leaves open W&B reads from its own variables, and where these say nothing it is ours.
        ours = lambda variable, value: None if os.environ.get(f"WANDB_{variable}") else value
        run = wandb.init(
            project=options.project or ours("PROJECT", "loqa"),
            entity=options.entity,
            group=options.group or ours("RUN_GROUP", provenance.multirun_name()),
            name=options.name or ours("NAME", directory.name),
            tags=options.tags or None,
            dir=os.path.expanduser(options.dir) if options.dir else ours("DIR", str(directory)),
            config=settings,
            mode=mode,
            id=self.run_id,
            resume="allow" if self.run_id else None,
            reinit="create_new",  # beside those of other seeds, and of one that was left open
            settings=wandb.Settings(**{x: y for x, y in SETTINGS.items() if f"WANDB_{x.upper()}" not in os.environ}),
        )
        run.define_metric("*", step_metric="iteration")
        self._run, self.run_id, self._path = run, run.id, short_path(Path(run.dir).parent)

    def log(self, row: dict[str, float]) -> None:
        """Logs an evaluation, at the step of its iteration."""
        run = self._run
        if run is not None and (problem := attempt(lambda: run.log(row, step=int(row["iteration"])))):
            self._log_line(f"W&B failed ({problem}); this run continues without it")
            self._run = None
            attempt(lambda: run.finish(exit_code=1))  # nothing of it may reach the process's next run

    def finish(self, exit_code: int) -> None:
        """Waits for the uploads."""
        run, self._run = self._run, None
        if run is not None and (problem := attempt(lambda: run.finish(exit_code=exit_code))):
            self._log_line(f"W&B did not finish ({problem}). To upload what is missing: wandb sync {self._path}")
