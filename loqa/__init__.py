"""LOQA: Learning with Opponent Q-Learning Awareness (Aghajohari et al., ICLR 2024, arXiv 2405.01035)."""

__version__ = "0.2.0"
