"""Evaluate a checkpoint on the validation part of a click log: ``python -m sessrec.validate``."""

from __future__ import annotations

from sessrec.cli import run_command


def main(args: list[str] | None = None) -> None:
    """Evaluate a checkpoint on the validation part of a click log.

    Args:
        args: Words of the command line; those of the process where None.
    """
    run_command("validate", args)


if __name__ == "__main__":
    main()
