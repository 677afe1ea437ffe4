"""Audit tested runs, as ``sessrec audit`` does."""

from sessrec.audit import main

if __name__ == "__main__":
    main()
