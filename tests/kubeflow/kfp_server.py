"""A Kubeflow Pipelines API server that keeps what it is given and plays runs back."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.parse
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

API = "/apis/v2beta1"


class KfpServer:
    """What a server knows.

    Attributes:
        states: What each further question about a run is answered with: state of the run, and of its tasks. A number is
            an HTTP status.
        token: What requests must bring; None: nothing.
        requests: Method and path of everything that was asked.
    """

    def __init__(self, states: list[Any], token: str | None = None) -> None:
        self.states = states
        self.token = token
        self.requests: list[tuple[str, str]] = []
        self.uploaded: dict[str, bytes] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.pipelines: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Answers one request, as api/v2beta1 of github.com/kubeflow/pipelines describes it."""
        self.requests.append((method, path))
        match method, path.removeprefix(API).strip("/").split("/"):
            case "GET", ["healthz"]:
                return 200, {"multi_user": False}
            case "GET", ["experiments"]:
                return 200, {"experiments": self._named(self.experiments, query), "total_size": len(self.experiments)}
            case "POST", ["experiments"]:
                return 200, self._new(self.experiments, "experiment_id", json.loads(body))
            case "GET", ["pipelines"]:
                return 200, {"pipelines": self._named(self.pipelines, query), "total_size": len(self.pipelines)}
            case "POST", ["pipelines", "upload"]:
                self.uploaded["pipeline"] = body
                return 200, self._new(self.pipelines, "pipeline_id", {"display_name": query["name"]})
            case "POST", ["pipelines", "upload_version"]:
                self.uploaded[query["name"]] = body
                return 200, {"pipeline_id": query["pipelineid"], "pipeline_version_id": f"version of {query['name']}"}
            case "POST", ["runs"]:
                run = json.loads(body) | {"run_id": f"run-{len(self.runs) + 1}", "state": "PENDING"}
                self.runs[run["run_id"]] = run
                return 200, run
            case "GET", ["runs"]:
                return 200, {"runs": list(self.runs.values()), "total_size": len(self.runs)}
            case "GET", ["runs", run_id] if run_id in self.runs:
                return self._next_state(run_id)
        return 404, {"error": "not found", "code": 5, "message": f"{path} was not found"}

    def _next_state(self, run_id: str) -> tuple[int, Any]:
        now = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(now, int):
            return now, {"message": "the database is being moved"}
        state, tasks = now
        details = [
            {"display_name": name, "state": task, "start_time": f"2026-11-24T10:00:{second:02}Z"} | error
            for second, (name, (task, error)) in enumerate(tasks.items())
        ]
        return 200, self.runs[run_id] | {"state": state, "run_details": {"task_details": details}}

    @staticmethod
    def _named(known: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
        wanted = [each.get("stringValue") or each.get("string_value") for each in predicates]
        return [each for each in known if not wanted or each["display_name"] in wanted]

    @staticmethod
    def _new(known: list[dict[str, Any]], key: str, made: dict[str, Any]) -> dict[str, Any]:
        known.append(made | {key: f"{key}-{len(known) + 1}"})
        return known[-1]


@contextlib.contextmanager
def serving(server: KfpServer) -> Iterator[str]:
    """Serves on a port of this machine, and yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get_content_type() == "multipart/form-data":
                body = _uploaded_file(self.headers["Content-Type"], body)
            status, content = 401, {"message": "who are you?"}
            if server.token is None or self.headers.get("authorization") == f"Bearer {server.token}":
                status, content = server.answer(self.command, url.path, dict(urllib.parse.parse_qsl(url.query)), body)
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


def _uploaded_file(content_type: str, body: bytes) -> bytes:
    message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    return message.get_payload()[0].get_payload(decode=True)
