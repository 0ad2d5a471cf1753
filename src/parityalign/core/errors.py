"""The one error that is meant for the user; every other exception is a bug and keeps its traceback."""


class UserError(Exception):
    """Something in the request is wrong: says what was given, where, and what to do next.

    Attributes:
        exit_status: 2 when the request was wrong, 1 when the work failed.
    """

    def __init__(self, message: str, *, exit_status: int = 2) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class WorkFailed(UserError):
    """The request was fine but the work could not be done; what was computed is kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_status=1)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while something goes on elsewhere; the message says what."""


def missing_package(who: str, package: str, install: str) -> UserError:
    """The error for a missing optional package.

    Args:
        who: What needs it, such as `reading Parquet`.
        package: Its name.
        install: The argument of `pip install`.
    """
    return UserError(f"{who} needs the package {package}, which is not installed.\nInstall it: pip install {install}")
