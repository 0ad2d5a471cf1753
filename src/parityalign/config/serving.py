"""How remote models are asked, as settings; `schema.py` joins them with the others."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from parityalign.config.base import Settings


def _variable(name: str) -> str:
    # What is refused is not shown: it may be the key itself.
    if not re.fullmatch("[A-Z][A-Z0-9_]*", name):
        raise ValueError("is no name of an environment variable (capitals, digits, underscores); a key belongs in one")
    return name


class ServerSettings(Settings):
    """How remote models (`http://...`) are asked, and what may be spent on them. No result hangs on these."""

    key_variable: Annotated[str, AfterValidator(_variable)] = "PARITYALIGN_API_KEY"
    """Environment variable that holds the key, never the key itself; unset: the server is asked without one."""
    max_concurrency: int = Field(default=16, ge=1)
    """Requests that wait for their answers at once."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds after which a request without its whole answer is given up and sent again."""
    max_attempts: int = Field(default=8, ge=1)
    """Requests for one question after which the stage stops."""
    backoff: float = Field(default=1.0, gt=0)
    """Seconds before the second attempt, doubled for each one after it; a server's Retry-After goes first."""
    budget_requests: int | None = Field(default=None, ge=1)
    """Requests in the whole run, repeated and refused ones too; None: no limit. So for the two below."""
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_money: float | None = Field(default=None, gt=0)
    """In the currency of the prices."""
    prompt_price: float = Field(default=0.0, ge=0)
    """Of a million tokens."""
    completion_price: float = Field(default=0.0, ge=0)
    logprobs: bool = False
    """Whether the log-probability of every reply is asked for and kept."""

    @model_validator(mode="after")
    def _money_has_prices(self) -> Self:
        if self.budget_money is not None and not self.prompt_price + self.completion_price:
            raise ValueError(
                f"budget_money is {self.budget_money}, but no price is given. Set prompt_price and completion_price"
            )
        return self
