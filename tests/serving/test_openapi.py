"""The OpenAPI document, and schemathesis asking the server all that the document allows and forbids."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from edge_servers import MODEL_NAME, RunningServer


def test_the_document_has_every_operation(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    operations = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    v1 = [f"/v1/models/{MODEL_NAME}{of}" for of in ("", "/versions/{version}", "/labels/{label}")]
    v2 = [f"/v2/models/{MODEL_NAME}{of}" for of in ("", "/versions/{version}")]
    assert operations == {
        *(f"POST {model}:predict" for model in v1),
        *(f"GET {model}" for model in v1),
        *(f"GET {model}/metadata" for model in v1),
        *(f"POST {model}/infer" for model in v2),
        *(f"GET {model}" for model in v2),
        *(f"GET {model}/ready" for model in v2),
        "GET /v1/models",
        "GET /v2/models",
        "GET /v2",
        "GET /v2/health/live",
        "GET /v2/health/ready",
        "POST /predict",
    }
    assert all("requestBody" in item["post"] for item in document["paths"].values() if "post" in item)


@pytest.mark.component  # Sends hundreds of requests.
def test_the_server_does_as_the_document_says(server: RunningServer, tmp_path: Path) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
        *("--checks", checks, "--max-examples", "20", "--seed", "1", "--generation-database", "none"),
        *("--phases", "examples,coverage,fuzzing", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
