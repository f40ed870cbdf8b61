"""Gateways of language models: LiteLLM and Portkey, forwarding chat completions to the same backend.

Belongs here: their configurations. Never here: telling either to do more than forward and split.
"""

import json
from pathlib import Path

import yaml

from loadtests.bench.programs import Program, free_port
from loadtests.peers.environment import node_environment, python_environment, version_of
from loadtests.peers.loads import chat_load
from loadtests.peers.peer import Place, Served, Task

_LOOPBACK_ONLY = Path(__file__).parent / "programs" / "loopback_only.cjs"


class LiteLLM:
    """The proxy without a database, without keys and without telemetry."""

    name, said = "LiteLLM", "two deployments 9/1; no keys, no database; one worker"
    task: Task = "chat"

    def install(self, cache: Path) -> str:
        """Install the pinned list and return its version."""
        python_environment(cache, "litellm")
        return version_of("litellm", "litellm")

    def start(self, place: Place) -> Served:
        """Start it; it may ask nothing of the network, so its price list is the one that it ships."""
        port = free_port()
        place.folder.mkdir(parents=True, exist_ok=True)
        deployments = [
            {
                "model_name": "fraud",
                "litellm_params": {
                    "model": f"openai/fraud-{version}",
                    "api_base": f"{place.backend_url}/v1",
                    "api_key": "none",
                    "weight": weight,
                },
            }
            for version, weight in ((1, 9), (2, 1))
        ]
        configuration = place.folder / "litellm.yaml"
        configuration.write_text(yaml.safe_dump({"model_list": deployments}))
        words = ["--config", str(configuration), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        variables = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # it listens on loopback only
        }
        binary = python_environment(place.cache, "litellm") / "litellm"
        program = Program(
            [binary, *words], log=place.folder / "log", cores=[place.core], variables=variables, folder=place.folder
        )
        return Served(f"http://127.0.0.1:{port}", program, chat_load())


class Portkey:
    """The gateway on Node.js; its rules come with each request, in a header."""

    name, said = "Portkey", "load balance 0.9/0.1 by a header; one process"
    task: Task = "chat"

    def install(self, cache: Path) -> str:
        """Install the pinned list and return its version."""
        node_environment(cache, "portkey")
        return version_of("portkey", "@portkey-ai/gateway")

    def start(self, place: Place) -> Served:
        """Start it without its console."""
        port = free_port()
        place.folder.mkdir(parents=True, exist_ok=True)
        script = node_environment(place.cache, "portkey") / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        command = ["node", "--require", str(_LOOPBACK_ONLY), str(script), f"--port={port}", "--headless"]
        variables = {"NODE_ENV": "production"}
        log = place.folder / "log"
        program = Program(command, log=log, cores=[place.core], variables=variables, folder=place.folder)
        target = {"provider": "openai", "api_key": "none", "custom_host": f"{place.backend_url}/v1"}
        rules = {
            "strategy": {"mode": "loadbalance"},
            "targets": [{**target, "weight": 0.9}, {**target, "weight": 0.1}],
        }
        return Served(f"http://127.0.0.1:{port}", program, chat_load(("x-portkey-config", json.dumps(rules))))
