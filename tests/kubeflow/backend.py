"""Plays the open-source backend of Kubeflow Pipelines: driver and launcher, from the compiled YAML alone.

It follows backend/src/v2/driver and backend/src/v2/component/launcher_v2.go of github.com/kubeflow/pipelines, also
where they are inconvenient: types of input artifacts are lost, driver hooks are not run, artifacts are known by their
number in the metadata store, the cache looks at those numbers, parameters, command and image, and at nothing else.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import re
import threading
import uuid
from typing import TYPE_CHECKING, Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.kubeflow.object_store import ObjectStore
from tests.kubeflow.pod import Pod, give_away

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

OUTPUT_FILE = "/tmp/kfp_outputs/output_metadata.json"  # noqa: S108 (in the pod)
SUCCEEDED, CACHED, FAILED, SKIPPED = "SUCCEEDED", "CACHED", "FAILED", "SKIPPED"
_LOCAL = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}
_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == '([^']*)'")


@dataclasses.dataclass
class Task:
    """What became of a task."""

    state: str
    attempts: int = 0
    artifacts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Doom:
    """Kills a pod's first attempts."""

    attempts: int = 1
    when: Callable[[], bool] = lambda: True


class Backend:
    """A cluster: its object store, its metadata store, its cache, its volumes."""

    def __init__(self, root: Path, claims: Mapping[str, Path]) -> None:
        """Starts with nothing in it.

        Args:
            root: Directory for the store, pods and logs.
            claims: Directory of each PersistentVolumeClaim.
        """
        self.store = ObjectStore(root / "store")
        self._root = root
        self._claims = claims
        for directory in claims.values():
            give_away(directory)
        self._numbers = itertools.count(1)
        self._cache: dict[str, Task] = {}
        self._lock = threading.Lock()

    def run(self, package: str, dooms: Mapping[str, Doom] | None = None, last_task: str | None = None) -> Run:
        """Runs an uploaded package, two tasks at a time, to its end or as far as one task needs."""
        run = Run(self, package, dooms or {})
        run.to_end(last_task)
        return run

    def publish(self, artifacts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Records artifacts; from here on, each is known by its number."""
        for key, artifact in artifacts.items():
            with self._lock:
                artifact["name"] = str(next(self._numbers))
            # Types do not come back from the metadata store.
            artifact["type"] = {"instanceSchema": ""}
            artifact.setdefault("metadata", {}).setdefault("display_name", key)
        return artifacts

    def cached(self, fingerprint: str) -> Task | None:
        """Returns the task that answered to a fingerprint before."""
        return self._cache.get(fingerprint)

    def remember(self, fingerprint: str, task: Task) -> None:
        """Keeps a task's outputs for the cache."""
        self._cache[fingerprint] = task

    def new_directory(self, name: str) -> Path:
        """Returns a directory that nothing else has."""
        directory = self._root / "pods" / f"{name}-{uuid.uuid4().hex[:8]}"
        directory.mkdir(parents=True)
        return directory

    def volume(self, claim: str) -> Path:
        """Returns the directory of a claim."""
        return self._claims[claim]


class Run:
    """One run of a package."""

    def __init__(self, backend: Backend, package: str, dooms: Mapping[str, Doom]) -> None:
        self._backend = backend
        self.store = backend.store
        spec, platform = yaml.safe_load_all(package)
        self._spec = spec
        self._platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._dooms = dooms
        self._id = str(uuid.uuid4())
        self.tasks: dict[str, Task] = {}
        self.logs: dict[str, str] = {}

    def to_end(self, last_task: str | None) -> None:
        """Runs every task whose producers ran."""
        tasks = self._spec["root"]["dag"]["tasks"]
        waiting = dict(tasks) if last_task is None else {name: tasks[name] for name in _needed(tasks, last_task)}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running: dict[concurrent.futures.Future[Task], str] = {}
            while waiting or running:
                for name in [name for name, task in waiting.items() if _upstream(task) <= self.tasks.keys()]:
                    running[pool.submit(self._drive, name, waiting.pop(name))] = name
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    self.tasks[running.pop(future)] = future.result()

    @property
    def succeeded(self) -> bool:
        """Tells whether no task failed."""
        return all(task.state != FAILED for task in self.tasks.values())

    def _drive(self, name: str, task: dict[str, Any]) -> Task:
        if any(self.tasks[producer].state in (FAILED, SKIPPED) for producer in _upstream(task)):
            return Task(SKIPPED)
        component = self._spec["components"][task["componentRef"]["name"]]
        executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]
        container = executor["container"]
        inputs = self._inputs(task)
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition and not _holds(condition, inputs["parameterValues"]):
            return Task(SKIPPED)
        outputs = self._outputs(name, component)
        fingerprint = _fingerprint(inputs, outputs, component, container, self._config(component).get("pvcMount", []))
        if task.get("cachingOptions", {}).get("enableCache"):
            known = self._backend.cached(fingerprint)
            if known:
                return dataclasses.replace(known, state=CACHED, attempts=0)
        result = self._launch(name, task, component, container, {"inputs": inputs, "outputs": outputs})
        if result.state == SUCCEEDED and task.get("cachingOptions", {}).get("enableCache"):
            self._backend.remember(fingerprint, result)
        return result

    def _config(self, component: dict[str, Any]) -> dict[str, Any]:
        return self._platform.get(component["executorLabel"], {})

    def _inputs(self, task: dict[str, Any]) -> dict[str, Any]:
        parameters, artifacts = {}, {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                parameters[name] = source["runtimeValue"]["constant"]
            else:
                produced = source["taskOutputParameter"]
                parameters[name] = self.tasks[produced["producerTask"]].parameters[produced["outputParameterKey"]]
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            produced = source["taskOutputArtifact"]
            artifact = self.tasks[produced["producerTask"]].artifacts[produced["outputArtifactKey"]]
            artifacts[name] = {"artifacts": [artifact]}
        return {"parameterValues": parameters, "artifacts": artifacts}

    def _outputs(self, name: str, component: dict[str, Any]) -> dict[str, Any]:
        definitions = component.get("outputDefinitions", {})
        root = f"{self._spec['defaultPipelineRoot']}/{self._spec['pipelineInfo']['name']}/{self._id}/{name}"
        salt = uuid.uuid4()
        artifacts = {
            key: {
                "artifacts": [
                    {
                        "uri": f"{root}/{salt}/{key}",
                        "type": definition["artifactType"],
                        "metadata": definition.get("metadata", {}),
                    }
                ]
            }
            for key, definition in definitions.get("artifacts", {}).items()
        }
        parameters = {
            key: {"outputFile": f"/tmp/kfp/outputs/{key}"}  # noqa: S108 (in the pod)
            for key in definitions.get("parameters", {})
        }
        return {"artifacts": artifacts, "parameters": parameters, "outputFile": OUTPUT_FILE}

    def _launch(
        self,
        name: str,
        task: dict[str, Any],
        component: dict[str, Any],
        container: dict[str, Any],
        executor_input: dict[str, Any],
    ) -> Task:
        attempts = 1 + int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        doom = self._dooms.get(name, Doom(attempts=0))
        for attempt in range(1, attempts + 1):
            pod = self._pod(name, component, container)
            self._lay_out(pod, executor_input)
            log = pod.scratch.parent / "log.txt"
            command = [_fill_in(text, executor_input) for text in (*container["command"], *container.get("args", []))]
            deadline = self._config(component).get("activeDeadlineSeconds")
            doomed = attempt <= doom.attempts
            status = pod.run(
                command, log, float(deadline) if deadline else None, lambda doomed=doomed: doomed and doom.when()
            )
            self.logs[name] = log.read_text(errors="replace")
            if status == 0:
                return self._collect(pod, executor_input, attempt)
        return Task(FAILED, attempts)

    def _pod(self, name: str, component: dict[str, Any], container: dict[str, Any]) -> Pod:
        scratch = self._backend.new_directory(name) / "pod"
        scratch.mkdir()
        volumes = {
            mount["mountPath"]: self._backend.volume(mount["constant"])
            for mount in self._config(component).get("pvcMount", [])
        }
        return Pod(scratch, volumes, {each["name"]: each["value"] for each in container.get("env", [])})

    def _lay_out(self, pod: Pod, executor_input: dict[str, Any]) -> None:
        for artifacts in executor_input["inputs"]["artifacts"].values():
            uri = artifacts["artifacts"][0]["uri"]
            self._backend.store.download(uri, pod.path(_local_path(uri)))
        for artifacts in executor_input["outputs"]["artifacts"].values():
            pod.path(_local_path(artifacts["artifacts"][0]["uri"])).parent.mkdir(parents=True, exist_ok=True)
        for parameter in executor_input["outputs"]["parameters"].values():
            pod.path(parameter["outputFile"]).parent.mkdir(parents=True, exist_ok=True)

    def _collect(self, pod: Pod, executor_input: dict[str, Any], attempts: int) -> Task:
        said = pipeline_spec_pb2.ExecutorOutput()
        file = pod.path(OUTPUT_FILE)
        if file.exists():
            json_format.Parse(file.read_text(), said)
        parameters = {key: json_format.MessageToDict(value) for key, value in said.parameter_values.items()}
        for key, parameter in executor_input["outputs"]["parameters"].items():
            if key not in parameters:
                parameters[key] = pod.path(parameter["outputFile"]).read_text()
        artifacts = {}
        for key, listed in executor_input["outputs"]["artifacts"].items():
            artifact = json.loads(json.dumps(listed["artifacts"][0]))
            for update in said.artifacts[key].artifacts[:1]:
                artifact["uri"] = update.uri or artifact["uri"]
                artifact["metadata"] = artifact.get("metadata", {}) | json_format.MessageToDict(update.metadata)
            local = _local_path(artifact["uri"])
            if local:
                self._backend.store.upload(pod.path(local), artifact["uri"])
            artifacts[key] = artifact
        return Task(SUCCEEDED, attempts, self._backend.publish(artifacts), parameters)


def _upstream(task: dict[str, Any]) -> set[str]:
    return set(task.get("dependentTasks", []))


def _needed(tasks: Mapping[str, Any], name: str) -> set[str]:
    return {name}.union(*(_needed(tasks, producer) for producer in _upstream(tasks[name])))


def _local_path(uri: str) -> str:
    return next((local + uri.removeprefix(scheme) for scheme, local in _LOCAL.items() if uri.startswith(scheme)), "")


def _holds(condition: str, parameters: Mapping[str, Any]) -> bool:
    match = _CONDITION.fullmatch(condition)
    assert match, f"the harness does not know conditions such as {condition}"
    return parameters[match[1]] == match[2]


def _fill_in(text: str, executor_input: dict[str, Any]) -> str:
    for name, value in executor_input["inputs"]["parameterValues"].items():
        text = text.replace("{{$.inputs.parameters['" + name + "']}}", str(value))
    return text.replace("{{$}}", json.dumps(executor_input)) if "{{$}}" in text else text


def _fingerprint(
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    component: dict[str, Any],
    container: dict[str, Any],
    volumes: list[dict[str, Any]],
) -> str:
    """Follows GenerateCacheKey of backend/src/v2/cacheutils/cache.go."""
    key = {
        "inputArtifactNames": {
            name: [each["name"] for each in listed["artifacts"]] for name, listed in inputs["artifacts"].items()
        },
        "inputParameterValues": inputs["parameterValues"],
        "outputArtifactsSpec": {
            name: {field: value for field, value in listed["artifacts"][0].items() if field != "uri"}
            for name, listed in outputs["artifacts"].items()
        },
        "outputParametersSpec": component.get("outputDefinitions", {}).get("parameters", {}),
        "containerSpec": {
            "image": container["image"],
            "cmdArgs": [*container["command"], *container.get("args", [])],
            "env": container.get("env", []),
            "pvcNames": sorted(volume["constant"] for volume in volumes),
        },
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
