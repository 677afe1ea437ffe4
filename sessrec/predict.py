"""Write the best next items of every session of a click log: ``python -m sessrec.predict``."""

from __future__ import annotations

from sessrec.cli import run_command


def main(args: list[str] | None = None) -> None:
    """Write the best next items of every session of a click log.

    Args:
        args: Words of the command line; those of the process where None.
    """
    run_command("predict", args)


if __name__ == "__main__":
    main()
