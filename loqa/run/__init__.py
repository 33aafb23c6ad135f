"""What surrounds a run: its configuration, its directory, terminal, signals, checkpoints and W&B."""
