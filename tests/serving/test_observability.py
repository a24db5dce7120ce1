"""What the server tells its operators: metrics and traces."""

import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from edge_images import encode, photo
from edge_servers import PREDICT, run_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from PIL import Image

from serving.predictor import Predictor

pytestmark = pytest.mark.component  # Starts a server for each test.


def _value(metrics: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    assert found, f"{name} is not among\n{metrics}"
    return float(found[1])


def test_metrics_tell_what_was_asked_and_answered(uint8_bundle: Path, tmp_path: Path, predictor: Predictor) -> None:
    rng = np.random.default_rng(8)
    photos = [encode(photo(rng, 40, 40), "PNG") for _ in range(20)]
    white = encode(Image.new("RGB", (30, 30), "white"), "PNG")
    with (
        run_server(uint8_bundle, tmp_path / "log.txt") as running,
        httpx.Client(base_url=running.url, timeout=30, trust_env=False) as client,
    ):
        for content in (*photos, white):
            assert client.post("/predict", content=content).status_code == 200
        client.post(PREDICT, json={})
        client.get("/nowhere")
        exposed = client.get("/metrics")
    assert exposed.headers["content-type"].startswith("text/plain; version=")
    text = exposed.text
    assert _value(text, 'trimline_requests_total{route="/predict",status="200"}') == 21
    assert _value(text, f'trimline_requests_total{{route="{PREDICT}",status="400"}}') == 1
    assert _value(text, 'trimline_requests_total{route="unmatched",status="404"}') == 1
    assert _value(text, 'trimline_request_seconds_count{route="/predict"}') == 21
    for stage in ("queue", "decode", "invoke", "encode"):
        assert _value(text, f'trimline_stage_seconds_count{{stage="{stage}"}}') >= 21
    assert _value(text, 'trimline_model_version{label="stable"}') == 3
    assert _value(text, 'trimline_model_version{label="canary"}') == 0
    assert _value(text, "trimline_queued_requests") == 0
    probabilities = predictor.predict_images([*photos, white])
    labels, counts = np.unique(probabilities.argmax(axis=1), return_counts=True)
    for label, count in zip(labels, counts, strict=True):
        name = predictor.labels[label]
        assert _value(text, f'trimline_predictions_total{{label="{name}",version="3"}}') == count
    sure = int((probabilities.max(axis=1) <= 0.7).sum())
    assert _value(text, 'trimline_confidence_bucket{le="0.7",version="3"}') == sure
    assert _value(text, 'trimline_image_brightness_count{version="3"}') == 21
    # Only the white one is brighter than 0.9.
    assert _value(text, 'trimline_image_brightness_bucket{le="0.9",version="3"}') == 20


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A server that takes traces; its address, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Keeps the test's output clean."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_traces_go_to_the_collector_where_they_are_asked_for(
    uint8_bundle: Path, tmp_path: Path, files: list[bytes], collector: tuple[str, list[ExportTraceServiceRequest]]
) -> None:
    url, received = collector
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100", "NO_PROXY": "127.0.0.1"}
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with run_server(uint8_bundle, tmp_path / "log.txt", environment=environment, traces=True) as running:
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        answer = httpx.post(f"{running.url}/predict", content=files[0], headers=headers, trust_env=False)
        assert answer.status_code == 200
        deadline = time.monotonic() + 10
        while trace_id not in {span.trace_id.hex() for span in _spans(received)}:
            assert time.monotonic() < deadline, "no span arrived"
            time.sleep(0.1)
    (span,) = (span for span in _spans(received) if span.trace_id.hex() == trace_id)
    assert span.name == "POST /predict"
    attributes = {each.key: each.value.string_value for each in received[0].resource_spans[0].resource.attributes}
    assert attributes["service.name"] == "pets"


def _spans(received: list[ExportTraceServiceRequest]) -> list:
    return [
        span
        for request in received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
