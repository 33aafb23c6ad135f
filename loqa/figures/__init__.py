"""Figures of runs: their style, training curves and bars."""
