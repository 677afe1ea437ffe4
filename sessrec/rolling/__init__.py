"""Fit and test models at many times of one log: windows, fits, what each step of time gives, and tables."""
