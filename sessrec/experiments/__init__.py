"""Fit and test several runs: comparisons, sweeps, and audits that fit anew."""

from sessrec.experiments.fit_and_test import fit_and_test

__all__ = ["fit_and_test"]
