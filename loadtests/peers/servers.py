"""Model servers: MLServer, KServe, LitServe and BentoML with the digits model in process, each as its guide shows.

Belongs here: how each is started; the models they run are in `programs/`. Never here: options that make one slower.
What costs and can be left out is left out (parallel workers, gRPC, latency traces), access logs are as they come.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.examples import digits_folder
from loadtests.bench.programs import Program, free_port
from loadtests.peers.environment import python_environment, version_of
from loadtests.peers.loads import digits_load
from loadtests.peers.peer import Place, Served, Task

_PROGRAMS = Path(__file__).parent / "programs"


def _model() -> Path:
    return digits_folder().resolve() / "1" / "model.onnx"


class _ModelServer:
    """What the four have in common: an environment of their own, the same model, the same requests."""

    task: Task = "in process"
    package = ""

    def install(self, cache: Path) -> str:
        """Install the pinned list and return the server's version."""
        python_environment(cache, self.package)
        return version_of(self.package, self.package)

    def _serve(
        self, place: Place, port: int, program: str, words: Sequence[str | Path], variables: Mapping[str, str]
    ) -> Served:
        place.folder.mkdir(parents=True, exist_ok=True)
        binaries = python_environment(place.cache, self.package)
        running = Program(
            [binaries / program, *words],
            log=place.folder / "log",
            cores=[place.core],
            variables={"PYTHONPATH": str(_PROGRAMS), "PYTHONDONTWRITEBYTECODE": "1", **variables},
            folder=place.folder,
        )
        return Served(f"http://127.0.0.1:{port}", running, digits_load())


class MLServer(_ModelServer):
    """Seldon's server with a runtime of ours around ONNX Runtime."""

    name, said, package = "MLServer", "custom runtime, no parallel workers, no access log", "mlserver"

    def start(self, place: Place) -> Served:
        """Start it on a folder with its two settings files."""
        port = free_port()
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        settings = {**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}
        model = {"name": "digits", "implementation": "mlserver_digits.Digits", "parameters": {"uri": str(_model())}}
        folder = place.folder / "model"
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        return self._serve(place, port, "mlserver", ["start", folder], {})


class KServe(_ModelServer):
    """KServe's Python server with a custom model."""

    name, said, package = "KServe", "custom model, one worker, no gRPC, no latency traces", "kserve"

    def start(self, place: Place) -> Served:
        """Start it."""
        port = free_port()
        return self._serve(place, port, "python", [_PROGRAMS / "kserve_digits.py", _model(), str(port)], {})


class LitServe(_ModelServer):
    """LitServe with an API of ours; it runs the model in a process of its own, always."""

    name, said, package = "LitServe", "LitAPI, one worker, one API server", "litserve"

    def start(self, place: Place) -> Served:
        """Start it."""
        port = free_port()
        return self._serve(place, port, "python", [_PROGRAMS / "litserve_digits.py", _model(), str(port)], {})


class BentoML(_ModelServer):
    """BentoML with a service of ours."""

    name, said, package = "BentoML", "one service, one worker", "bentoml"

    def start(self, place: Place) -> Served:
        """Start it."""
        port = free_port()
        home = {"BENTOML_HOME": str(place.folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}
        words = ["serve", "bentoml_digits:Digits", "--host", "127.0.0.1", "--port", str(port)]
        return self._serve(place, port, "bentoml", words, {"DIGITS_MODEL": str(_model()), **home})
