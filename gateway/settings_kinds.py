"""The kinds of values that settings have, and what a group of settings is.

Belongs here: types for settings. Never here: a setting.
"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _not_a_truth(value: object) -> object:
    """Refuse true and false where a number is wanted; Python, and so pydantic, takes them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


Whole = Annotated[int, BeforeValidator(_not_a_truth)]
Decimal = Annotated[float, BeforeValidator(_not_a_truth), Field(allow_inf_nan=False)]
Port = Annotated[Whole, Field(ge=0, le=65_535)]


class Group(BaseModel):
    """Settings that belong together: frozen, and no other names among them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
