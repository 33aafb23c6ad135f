"""Learners to compare LOQA with, on the same games: naive, LOLA and POLA."""
