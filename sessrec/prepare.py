"""Read, clean and split a click log, and report it: ``python -m sessrec.prepare``."""

from __future__ import annotations

from sessrec.cli import run_command


def main(args: list[str] | None = None) -> None:
    """Prepare a click log and report what is in it, without training.

    Args:
        args: Words of the command line; those of the process where None.
    """
    run_command("prepare", args)


if __name__ == "__main__":
    main()
