"""The games, a file each: what the package knows of a game is `GAME` of its file. A new file is found by itself."""

import importlib
import pkgutil
from collections.abc import Container
from typing import Any

from loqa.game import Game, GameSpec

_FOUND = [importlib.import_module(f"{__name__}.{file.name}").GAME for file in pkgutil.iter_modules(__path__)]
GAMES: dict[str, GameSpec] = {game.name: game for game in _FOUND}


def game_of(rules: Game) -> GameSpec:
    """The game with these rules."""
    return next(game for game in GAMES.values() if isinstance(rules, game.rules))


def game_of_run(name: str | None, settings: dict[str, Any], columns: Container[str]) -> GameSpec:
    """The game of a saved run, by its name; or, of an earlier version's run that names none, by its keys and columns.

    `settings`: of hp, keys joined by dots.
    """
    keys = {key.split(".")[0] for key in settings}
    fits = lambda game: len(keys & game.hyperparameters.model_fields.keys()) + sum(x in columns for x in game.titles)
    return GAMES.get(name) or max(GAMES.values(), key=fits)
