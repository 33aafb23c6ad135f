"""LOQA on the game of giving: `python giving.py hp.seed=7`."""

from ipd import make_experiment
from loqa.run import launch

if __name__ == "__main__":
    launch.script("giving", make_experiment)
