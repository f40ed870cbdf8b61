"""An ONNX artifact in memory: read once, verified against its digest, loaded, and described by a signature.

Belongs here: what ONNX Runtime says of a model and of a failure, in our words. Never here: requests, threads, times.

The bytes that are verified are the bytes that are loaded; the file is not opened a second time. A model that keeps
tensors in files of their own is refused, since no digest covers those.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from msgspec import Struct
from numpy.typing import DTypeLike

from gateway.catalog import Manifest, OnnxBackend, Signature, TensorSpec
from gateway.config import OnnxSettings
from gateway.errors import ArtifactInvalid, ArtifactMissing, DigestMismatch

PLATFORM = "onnx_onnxv1"
FATAL = 4
"""ONNX Runtime's log severity above which nothing is written: it logs to standard error, past our logger."""

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""Open Inference Protocol datatypes by ONNX Runtime's names of types."""

DTYPES: dict[str, DTypeLike] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
"""The numpy dtype that ONNX Runtime takes for each datatype."""

_NOWHERE = "/dev/null/external-data"
"""Where tensors outside the file would be looked for; without it ONNX Runtime reads them from the working folder."""

_LONGEST_WORDS = 300
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'[^']*' Status Message: ", re.DOTALL)
_SOURCE_LINE = re.compile(r"\S+\.(?:cc|h):\d+ (?:.* was false\. |\w+ (?=[A-Z])|.*?\)(?: const)? )?", re.DOTALL)
_PATH = re.compile(r"""["']?(?<![\w/])/[\w.+-]+/[^\s"']+["']?""")


class Loaded(Struct, frozen=True):
    """A verified model, ready to run. `datatypes` are the outputs in order, each with its datatype.

    `session.run` may be called by any number of threads at once; the session itself is never changed.
    """

    session: Any
    signature: Signature
    datatypes: dict[str, str]


def load(manifest: Manifest, settings: OnnxSettings) -> Loaded:
    """Read, verify and load the artifact of a version; blocks for as long as that takes.

    Raises:
        ArtifactMissing: the file is not there or cannot be read.
        DigestMismatch: it is not the file that the manifest names; the message has both digests.
        ArtifactInvalid: it is no ONNX model, or one whose tensors cannot be served.
    """
    backend = manifest.backend.onnx
    assert backend is not None  # the composition root chooses the executor by the kind of backend
    subject = f"version {manifest.version} of model {manifest.model}"
    data = _read(backend, subject)
    found = hashlib.sha256(data).hexdigest()
    if found != backend.sha256:
        raise DigestMismatch(
            f"{subject}: the artifact has changed: its manifest says sha256 {backend.sha256}, the file has {found}; "
            "put the registered file back, or register the new one as a new version"
        )
    session = _open(data, settings, subject)
    signature = _signature(session, subject)
    return Loaded(session, signature, {spec.name: spec.datatype for spec in signature.outputs})


def words_of(error: Exception) -> str:
    """Return what ONNX Runtime complains of, without its source files, signatures and paths; never empty."""
    text = _PREFIX.sub("", str(error))
    text = _NODE.sub(r"\1: ", text)
    text = _PATH.sub("(a path)", _SOURCE_LINE.sub("", text)).strip()
    if not type(error).__module__.startswith("onnxruntime") or not text:
        return type(error).__name__
    return text if len(text) <= _LONGEST_WORDS else f"{text[:_LONGEST_WORDS]}…"


def _read(backend: OnnxBackend, subject: str) -> bytes:
    path = Path(backend.path)
    try:
        if path.exists() and not path.is_file():
            raise ArtifactMissing(
                f"{subject}: {path.name} is not a regular file; backend.onnx.path names the ONNX file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ArtifactMissing(
            f"{subject}: cannot read its artifact {path.name}: {error.strerror}; put the file back where "
            "backend.onnx.path of the manifest says, readable by the gateway"
        ) from None


def _open(data: bytes, settings: OnnxSettings, subject: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = FATAL
    # Threads that spin between runs would take the processor from the event loop and from other versions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    try:
        return onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - whatever a foreign file makes the library raise, the file is unusable
        if _NOWHERE in str(error) or "External data" in str(error):
            raise ArtifactInvalid(
                f"{subject}: the model keeps tensors in other files, which its digest does not cover; save it as one "
                "file (onnx.save_model with save_as_external_data=False)"
            ) from None
        raise ArtifactInvalid(
            f"{subject}: ONNX Runtime {onnxruntime.__version__} cannot load the artifact: {words_of(error)}; "
            "check that it is an ONNX file and opens with onnxruntime.InferenceSession"
        ) from None


def _signature(session: Any, subject: str) -> Signature:
    inputs, outputs = (
        tuple(_spec(argument, f"{subject}: {side} {argument.name!r}") for argument in arguments)
        for side, arguments in (("input", session.get_inputs()), ("output", session.get_outputs()))
    )
    return Signature(PLATFORM, inputs, outputs)


def _spec(argument: Any, subject: str) -> TensorSpec:
    """Return one input or output. ONNX Runtime shows an undeclared shape as [], so it counts as a scalar's."""
    datatype = DATATYPES.get(argument.type)
    if datatype is None:
        raise ArtifactInvalid(
            f"{subject} is {argument.type}; only tensors of {', '.join(sorted(DATATYPES.values()))} can be served "
            "(models from skl2onnx: convert with the option zipmap=False)"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    symbols = tuple(size if isinstance(size, str) else None for size in argument.shape)
    return TensorSpec(argument.name, datatype, shape, symbols if any(symbols) else ())


onnxruntime.set_default_logger_severity(FATAL)
