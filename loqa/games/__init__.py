"""The games, a file each: what the package knows of a game is `GAME` of its file. A new file is found by itself."""

import importlib
import pkgutil
from collections.abc import Container
from typing import Any

from loqa.game import Game, GameSpec

_FILES = sorted(module.name for module in pkgutil.iter_modules(__path__))
GAMES: dict[str, GameSpec] = {
    game.name: game for game in (importlib.import_module(f"{__name__}.{file}").GAME for file in _FILES)
}


def game_of(rules: Game) -> GameSpec:
    """The game with these rules."""
    return next(game for game in GAMES.values() if isinstance(rules, game.rules))


def game_of_run(name: str | None, settings: dict[str, Any], columns: Container[str]) -> GameSpec:
    """The game of a saved run by its name, or of an earlier version's run that has none by its keys and columns.

    `settings`: of hp, keys joined by dots.
    """
    if name in GAMES:
        return GAMES[name]
    keys = {key.split(".")[0] for key in settings}

    def found(game: GameSpec) -> int:
        return len(keys & game.hyperparameters.model_fields.keys()) + sum(x in columns for x in game.titles)

    return max(GAMES.values(), key=found)
