"""Runs of a loaded model, in whatever thread they are asked for: arrays in, arrays and times out.

Belongs here: calling ONNX Runtime, and what it raises in our words. Never here: which thread, or when a run is stopped.
"""

from collections.abc import Mapping, Sequence
from time import monotonic_ns
from typing import Any, Final

from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from gateway.errors import GatewayError, InvalidInput, ModelFailed
from gateway.executors.onnx_session import words_of

BACKEND: Final = "onnx"
Feed = Mapping[str, NDArray[Any]]
TimedRun = tuple[list[NDArray[Any]], int, int]
"""Outputs, and when the run started and ended (monotonic ns)."""


def timed_run(session: Any, names: Sequence[str], feed: Feed, options: Any) -> TimedRun:
    """Run the model once; the outputs are in the order of `names`.

    Raises:
        InvalidInput: the model refuses the values.
        ModelFailed: it failed on them.
    """
    # The session's own `run` looks for inputs that are missing, as the signature has had us do, and for providers that
    # are not used here; for a small model that takes as long as the run. Binding inputs and outputs to the session is
    # as fast as this, but a binding is kept to the shapes of its first run, and cannot tell whose mistake an error is.
    run = getattr(session, "_sess", session).run
    started = monotonic_ns()
    try:
        arrays = run(names, feed, options)
    except Exception as error:  # noqa: BLE001 - a model's graph can make the library raise anything
        raise _in_our_words(error) from None
    return arrays, started, monotonic_ns()


def _in_our_words(error: Exception) -> GatewayError:
    if isinstance(error, InvalidArgument):
        return InvalidInput(f"inputs: the model refuses these values: {words_of(error)}")
    return ModelFailed(f"the model failed on this input: {words_of(error)}", BACKEND)
