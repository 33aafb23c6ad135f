"""The words of a command line as Hydra reads them: a run's directory is a preset, and a path may have any letters."""

import os
import re
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path

from hydra.core.config_store import ConfigStore

from loqa.games import GAMES
from loqa.run.config import ConfigError, complete_hp, read_settings, without_gone

PATHS = ("hp.save_dir", "hp.init_from", "wandb.dir", "wandb.wandb_dir")  # keys of which the values are paths
KEYWORDS = ("auto", "new", "null")  # what `resume` may be beside a path
READ_BY_HYDRA = re.compile(r"[\w./,-]*|'.*'|\".*\"|.*\$\{.*", re.ASCII)  # as it stands; a comma is a sweep's


def for_hydra(script: str, words: list[str]) -> list[str]:
    """The words of a script's command line such that Hydra understands them, or ConfigError.

    `--hp.seed=1`, as a W&B sweep passes it, is `hp.seed=1`. A path that Hydra could not read is quoted. `hp=DIRECTORY`
    of a run starts from its settings, as `--config-path DIRECTORY` does, and `resume=DIRECTORY` continues with them.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    options, others = parser.parse_known_args(words)
    if options.config_path:
        with suppress(ConfigError):  # where it is a configuration of Hydra's own
            read_settings(options.config_path)
            words = [f"hp={options.config_path}", *others]
    words = [re.sub(r"^--(?=\w+\.[\w.]+=|(hp|resume|experiment|smoke|launcher)=)", "", word) for word in words]
    has_preset, read = any(word.startswith("hp=") for word in words), []
    for word in words:
        key, _, value = word.partition("=")
        path = Path(os.path.expanduser(value.strip("'\"")))
        is_run = key in ("hp", "resume") and (path / "config.yaml").is_file()
        if is_run and (key == "hp" or not has_preset):
            read.append(f"hp={_quoted(_as_preset(script, path))}")
        if key == "resume" and value not in KEYWORDS or key in PATHS and not READ_BY_HYDRA.fullmatch(value):
            word = f"{key}={_quoted(value)}"
        read += [] if is_run and key == "hp" else [word]
    return sorted(read, key=lambda word: word not in ("-m", "--multirun"))  # which Hydra wants first


def _quoted(value: str) -> str:
    return value if value[:1] in ("'", '"') else "'" + value.replace("'", "\\'") + "'"


def _as_preset(script: str, directory: Path) -> str:
    """Makes the settings of a run a preset of this script for Hydra; returns its name, which is the path."""
    settings = without_gone(read_settings(directory))
    if (game := settings.get("game", script)) != script:
        command = f"python {GAMES[game].script or f'{game}.py'}" if game in GAMES else f"the script of {game}"
        raise ConfigError(f"{str(directory)!r} is a run of the game {game}: it needs {command}")
    parts = {part: settings.get(part) or {} for part in ("wandb", "jax")}
    if parts["wandb"].get("dir") == parts["wandb"].get("wandb_dir"):
        parts["wandb"].pop("dir", None)  # which takes the value of the other
    name = os.path.relpath(directory)  # Hydra finds no absolute one
    group, _, last = f"hp/{name}".rpartition("/")
    node = parts | {"hp": complete_hp(script, settings["hp"])}
    ConfigStore.instance().store(last, node, group, "_global_")
    return name
