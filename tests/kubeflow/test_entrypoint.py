"""What the entrypoint makes of an invocation, and of what a component says."""

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow import launcher_paths

pytestmark = pytest.mark.component

MODEL = {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}}


def prepared(inputs, outputs=None):
    from pipeline.kubeflow.entrypoint import prepare

    invocation = {
        "inputs": {"artifacts": {name: {"artifacts": [each]} for name, each in inputs.items()}},
        "outputs": {"artifacts": {name: {"artifacts": [each]} for name, each in (outputs or {}).items()}},
    }
    specification = {"artifacts": dict.fromkeys(inputs, MODEL)}
    executor_input = json_format.ParseDict(invocation, pipeline_spec_pb2.ExecutorInput())
    inputs_spec = json_format.ParseDict(specification, pipeline_spec_pb2.ComponentInputsSpec())
    return json_format.MessageToDict(prepare(executor_input, inputs_spec))


def test_types_that_the_backend_lost_come_from_the_component():
    (model,) = prepared({"model": {"name": "7", "uri": "s3://b/m", "type": {"instanceSchema": ""}}})["inputs"][
        "artifacts"
    ]["model"]["artifacts"]
    assert "tfx.Model" in model["type"]["instanceSchema"]
    assert (model["name"], model["uri"]) == ("7", "/s3/b/m")


def test_an_artifact_that_stands_for_nothing_is_as_one_that_a_resolver_did_not_find():
    here = {"uri": "gs://b/m", "metadata": {"absent": 0.0}}
    gone = {"uri": "gs://b/m", "metadata": {"absent": 1.0}}
    artifacts = prepared({"model": here, "baseline_model": gone})["inputs"]["artifacts"]
    assert len(artifacts["model"]["artifacts"]) == 1
    assert artifacts["baseline_model"] == {}


def test_uris_are_mapped_in_and_out_in_metadata_too(tmp_path):
    from pipeline.kubeflow.entrypoint import publish

    metadata = {"current_model": "minio://b/models/1", "plain": "/mnt/photos", "nested": {"list": ["minio://b/x", 1.0]}}
    artifact = {"uri": "minio://b/k", "metadata": metadata}
    (local,) = prepared({}, {"blessing": artifact})["outputs"]["artifacts"]["blessing"]["artifacts"]
    assert local["uri"] == "/minio/b/k"
    assert local["metadata"] == {
        "current_model": "/minio/b/models/1",
        "plain": "/mnt/photos",
        "nested": {"list": ["/minio/b/x", 1.0]},
    }
    file = tmp_path / "output.json"
    said = json_format.ParseDict(
        {"artifacts": {"blessing": {"artifacts": [local]}}}, pipeline_spec_pb2.ExecutorOutput()
    )
    file.write_text(json_format.MessageToJson(said))
    publish(file)
    published = json_format.Parse(file.read_text(), pipeline_spec_pb2.ExecutorOutput())
    assert json_format.MessageToDict(published)["artifacts"]["blessing"]["artifacts"] == [artifact]


@pytest.mark.parametrize("uri", ["minio://bucket/a/b", "s3://bucket/a", "gs://bucket/a b/c"])
def test_paths_of_the_launcher_map_both_ways(uri):
    assert launcher_paths.uri(launcher_paths.local_path(uri)) == uri
    assert launcher_paths.local_path(uri).startswith("/")


@pytest.mark.parametrize("path", ["/mnt/models", "file.txt", "", "https://example/s3://bucket"])
def test_what_is_no_object_stays_as_it_is(path):
    assert launcher_paths.local_path(path) == path
    assert launcher_paths.uri(path) == path
