"""The one error that a user can mend."""


class SessRecError(ValueError):
    """A fault in the input, an option or a checkpoint; its text says where and what to do.

    The commands print it in one line and leave with exit code 1. Every other exception is a defect of sessrec itself.
    """
