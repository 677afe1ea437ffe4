"""Matplotlib figures of data, models and results; each is a function that returns a Figure."""
