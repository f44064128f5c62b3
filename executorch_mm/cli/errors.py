"""The one error that the command line adds."""


class UsageError(Exception):
    """Arguments that are fine one by one do not go together, or a value is out of range. Exit code 2."""
