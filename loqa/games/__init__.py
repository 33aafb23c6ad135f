"""The games: frozen dataclasses with pure `reset`, `step` and `observe`, one episode at a time."""
