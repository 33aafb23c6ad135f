"""Hydra finds the presets that both scripts share as a package: see hydra.searchpath in config.yaml."""
