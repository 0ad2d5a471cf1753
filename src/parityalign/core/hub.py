"""What the Hugging Face hub's client raises."""


def out_of_reach() -> tuple[type[Exception], ...]:
    """What the hub's client raises where there is no way to the hub and the cache does not do instead.

    Its own answers (`HfHubHTTPError`) are none of these.
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
