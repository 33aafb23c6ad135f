"""The payoffs of games of two actions, as Python numbers: the configuration checks them, and does without JAX."""

# Of player 0, then of player 1: its reward in CC, CD, DC and DD.
Payoffs = tuple[tuple[float, ...], tuple[float, ...]]

# The player's own action stands first, as in the states it sees: in a symmetric game both have the same row.
PAYOFFS: dict[str, Payoffs] = {
    # As in LOLA (Foerster et al. 2018, arXiv 1709.04326) and in LOQA.
    "ipd": ((-1.0, -3.0, 0.0, -2.0),) * 2,
    # Leibo et al. 2017, arXiv 1702.03037, figure 1. C swerves: D does better against C, and C against D.
    "chicken": ((3.0, 1.0, 4.0, 0.0),) * 2,
    # From the same figure. C hunts the stag, for which it takes both; D the hare, which is safe.
    "stag_hunt": ((4.0, 0.0, 3.0, 1.0),) * 2,
    # Osborne and Rubinstein 1994, A Course in Game Theory, example 15.3. C is what player 0 would rather do, D
    # what player 1 would, and what they do apart pleases neither.
    "battle_of_the_sexes": ((2.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 2.0)),
    # Example 17.1 there, and in LOLA. C is heads, D is tails; player 0 wins if they match.
    "matching_pennies": ((1.0, -1.0, -1.0, 1.0), (-1.0, 1.0, 1.0, -1.0)),
}


def title_of(name: str) -> str:
    """What figures call the game `hp.game_name`."""
    return {"ipd": "IPD", "custom": "Custom game"}.get(name) or name.replace("_", " ").capitalize()
