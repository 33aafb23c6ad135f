"""Presets that both scripts find; Hydra looks for configuration in packages only."""
