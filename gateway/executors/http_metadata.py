"""What a server of the Open Inference Protocol v2 says of a model: whether it is ready, and its signature.

Belongs here: reading those two answers. Never here: asking for them.
"""

import msgspec

from gateway.catalog import Signature, TensorSpec
from gateway.ports import UpstreamReply


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _Metadata(msgspec.Struct):
    """A backend's answer about a model. Fields that are not in the protocol are no concern of ours."""

    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    platform: str = ""


class _ReadyBody(msgspec.Struct):
    """Some servers answer a readiness probe with 200 and say in the body that they are not ready."""

    ready: bool = True


def parse_metadata(reply: UpstreamReply) -> Signature:
    """Return the signature in a backend's model metadata; fields beyond the protocol's are passed over.

    Raises:
        ValueError: another status than 200, or not the metadata of the protocol; the message says where.
    """
    if reply.status != 200:
        raise ValueError(f"answered {reply.status} to the question for its metadata")
    try:
        metadata = msgspec.json.decode(reply.body, type=_Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"gave metadata that is not the Open Inference Protocol's: {error}") from None
    return Signature(metadata.platform, _specs(metadata.inputs), _specs(metadata.outputs))


def _specs(tensors: tuple[_Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)


def not_ready(reply: UpstreamReply) -> str:
    """Return why a readiness answer means "no", or nothing when it means "yes"."""
    if reply.status != 200:
        return f"answered {reply.status} to the question whether it is ready"
    try:
        said = msgspec.json.decode(reply.body, type=_ReadyBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""  # no body, or one of its own: the status has said it
    return "" if said.ready else "says that it is not ready"
