"""The games, a file each: what the package knows of a game is `GAME` of its file. A new file is found by itself."""

import importlib
import pkgutil

from loqa.game import Game, GameSpec

_FOUND = [importlib.import_module(f"{__name__}.{file.name}").GAME for file in pkgutil.iter_modules(__path__)]
GAMES: dict[str, GameSpec] = {game.name: game for game in _FOUND}


def game_of(rules: Game) -> GameSpec:
    """The game with these rules."""
    return next(game for game in GAMES.values() if isinstance(rules, game.rules))
