"""Example models as package data: real ones, small, with the figures they really have.

Belongs here: where they are and the samples to try them on. Never here: registering or routing them, and nothing
that only training needs (that is `digits/train.py`, with the extra `train`).
"""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct


class DigitSample(Struct, frozen=True):
    """One held-out digit: 64 grey levels from 0 to 16, row-major 8×8, and what it shows."""

    pixels: Annotated[tuple[Annotated[int, Meta(ge=0, le=16)], ...], Meta(min_length=64, max_length=64)]
    label: Annotated[int, Meta(ge=0, le=9)]


def digits_folder() -> Path:
    """Return the folder with `1/`, `2/` and `3/` (manifest.json and model.onnx each) and samples.json."""
    return Path(__file__).parent / "digits"


def digit_samples() -> list[DigitSample]:
    """Return the held-out split that the manifests' figures are measured on, in a fixed order."""
    return msgspec.json.decode((digits_folder() / "samples.json").read_bytes(), type=list[DigitSample])
