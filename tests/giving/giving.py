"""LOQA on the game of giving: `python giving.py hp.seed=7`."""

from loqa.run import launch
from loqa.scripts.ipd import make_experiment

if __name__ == "__main__":
    launch.script("giving", make_experiment)
