"""The server that everything that forwards forwards to: nginx with fixed answers, cheaper than any proxy.

Belongs here: its answers and how it is started. Never here: a backend that misbehaves (that is for scenarios).
"""

import json
from pathlib import Path
from typing import Any

from loadtests.bench.programs import Program, free_port

OIP_ANSWER: dict[str, Any] = {
    "model_name": "fraud",
    "outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": [0.5]}],
}
CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "fraud",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "0.5"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
_READY: dict[str, Any] = {"ready": True}
_ENDLESS = 1_000_000_000  # requests on one connection

_CONFIGURATION = """\
daemon off; worker_processes 1; pid {folder}/backend.pid; error_log {folder}/backend.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; keepalive_requests {endless}; keepalive_timeout 600;
  client_body_buffer_size 64k; client_body_temp_path {folder}/backend-bodies;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ return 200 '{oip}'; }}
    location /v1/chat/completions {{ return 200 '{chat}'; }}
    location ~ /ready$ {{ return 200 '{ready}'; }}
  }}
}}
"""


class Backend(Program):
    """The running server; `url` is where it answers."""

    def __init__(self, folder: Path, core: int) -> None:
        """Start it on `core` with its files in `folder`, and wait until it answers."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        configuration = folder / "backend.conf"
        answers = {"oip": OIP_ANSWER, "chat": CHAT_ANSWER, "ready": _READY}
        texts = {name: json.dumps(answer) for name, answer in answers.items()}
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, endless=_ENDLESS, **texts))
        command = ["nginx", "-c", str(configuration), "-e", str(folder / "backend.err")]
        super().__init__(command, log=folder / "backend.log", cores=[core])
