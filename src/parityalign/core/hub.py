"""Exceptions of the Hugging Face hub's client."""


def out_of_reach() -> tuple[type[Exception], ...]:
    """Exceptions of the hub's client where the hub cannot be reached and the cache does not suffice.

    Responses of the hub itself (`HfHubHTTPError`) are not among these.
    """
    from httpx2 import RequestError  # noqa: PLC0415
    from huggingface_hub import errors  # noqa: PLC0415

    return (
        RequestError,
        ConnectionError,  # OfflineModeIsEnabled among them
        TimeoutError,
        errors.CachedRepoTreeNotFoundError,
        errors.LocalEntryNotFoundError,
        errors.RevisionResolutionError,
    )
