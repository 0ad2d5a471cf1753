"""Whether the packages of the extra `view` are installed; asked before a module that imports them is loaded."""

from importlib.util import find_spec

from parityalign.core import missing_package

NEEDED = ("starlette", "uvicorn")


def refuse_missing_packages() -> None:
    """Refuses to go on without them.

    Raises:
        UserError: One is missing; the message has the line that installs them.
    """
    for name in NEEDED:
        if find_spec(name) is None:
            raise missing_package("parityalign view", name, "'parityalign[view]'")
