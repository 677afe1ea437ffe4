"""Fit a model to a click log: ``python -m sessrec.fit``."""

from __future__ import annotations

from sessrec.cli import run_command


def main(args: list[str] | None = None) -> None:
    """Fit a model to a click log.

    Args:
        args: Words of the command line; those of the process where None.
    """
    run_command("fit", args)


if __name__ == "__main__":
    main()
