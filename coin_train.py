"""LOQA on the Coin Game: the algorithm of ipd.py, against past versions of the agent.

    python coin_train.py                                                # the paper's 3x3 run, one seed
    python coin_train.py hp.game.height=5 hp.game.width=5 hp.seed=7     # another grid; all keys: conf/coin

Read ipd.py: an iteration is the same. What differs is data: the game, in loqa/games/coin.py, and the presets in
conf/coin, with recurrent networks and opponents drawn from past versions of the agent.
"""

from functools import partial

from loqa.run import launch
from loqa.scripts.ipd import make_experiment

main = partial(launch.script, "coin", make_experiment)

if __name__ == "__main__":
    main()
