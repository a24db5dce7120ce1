"""Talks to a Kubeflow Pipelines server: uploads, starts, follows."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import time
import warnings
from typing import TYPE_CHECKING, Any

import kfp_server_api
import tenacity
import urllib3
from kfp.client import Client

from pipeline.kubeflow.outcome import CANCELED, FAILED, SKIPPED, SUCCEEDED
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.kubeflow.settings import KubeflowSettings

TOKEN_VARIABLE = "TRIMLINE_KUBEFLOW_TOKEN"  # noqa: S105 (the name of a variable)
_ENDED = (SUCCEEDED, SKIPPED, FAILED, CANCELED)
_POLL_SECONDS = 2.0
# A server that is being replaced is back within minutes; a run takes hours.
_PATIENCE_SECONDS = 300.0
# Nodes that the backend adds to those of the pipeline.
_OWN_NODES = ("root", "root-driver", "executor")
# The last is that of attempts, which Argo lists beside their node: executor(0).
_SUFFIXES = ("-driver", ")")
_SERVER_TROUBLE = 500


@dataclasses.dataclass(frozen=True)
class RunState:
    """What a server says of a run.

    Attributes:
        run_id: Its id.
        name: Its name.
        state: Its state, for example RUNNING.
        created: When it was started, ISO 8601.
        tasks: State of each task of the pipeline that has one, in the order in which they were started.
        errors: What went wrong in each task that failed.
    """

    run_id: str
    name: str
    state: str
    created: str
    tasks: dict[str, str]
    errors: dict[str, str]

    @property
    def ended(self) -> bool:
        """Tells whether nothing will change any more."""
        return self.state in _ENDED


class KubeflowClient:
    """One server."""

    def __init__(self, settings: KubeflowSettings) -> None:
        """Connects.

        Args:
            settings: `host`, `namespace`, `experiment` and `service_account` are used.

        Raises:
            UserError: There is no host, or no server of that kind there.
        """
        if not settings.host:
            raise UserError("kubeflow.host is not set; it must be the address of the Kubeflow Pipelines API")
        self._settings = settings
        token = os.environ.get(TOKEN_VARIABLE)
        with _explained(settings.host), _silent():
            # The client itself would ask five times, and say so each time.
            _ask_for_health(settings.host, token)
            self._client = Client(host=settings.host, namespace=settings.namespace or "kubeflow", existing_token=token)

    def submit(self, package: Path, pipeline_name: str, run_name: str) -> str:
        """Uploads a compiled pipeline as a new version and starts a run of it.

        Args:
            package: The compiled pipeline.
            pipeline_name: Name that its versions are filed under.
            run_name: Name of the version and of the run.

        Returns:
            The run's id.
        """
        settings = self._settings
        with _explained(settings.host), _silent():
            experiment = self._client.create_experiment(settings.experiment, namespace=settings.namespace)
            pipeline_id = self._pipeline_id(pipeline_name)
            if pipeline_id is None:
                created = self._client.upload_pipeline(str(package), pipeline_name, namespace=settings.namespace)
                pipeline_id = created.pipeline_id
            version = self._client.upload_pipeline_version(str(package), run_name, pipeline_id=pipeline_id)
            run = self._client.run_pipeline(
                experiment.experiment_id,
                run_name,
                pipeline_id=pipeline_id,
                version_id=version.pipeline_version_id,
                pipeline_root=settings.pipeline_root,
                service_account=settings.service_account,
            )
        return run.run_id

    def state(self, run_id: str) -> RunState:
        """Asks how a run stands."""
        with _explained(self._settings.host), _silent():
            return _run_state(self._client.get_run(run_id))

    def runs(self, count: int) -> list[RunState]:
        """Lists the latest runs of the experiment, newest first; none where there is no such experiment."""
        settings = self._settings
        with _explained(settings.host), _silent():
            try:
                experiment = self._client.get_experiment(
                    experiment_name=settings.experiment, namespace=settings.namespace
                )
            except ValueError:
                return []
            listed = self._client.list_runs(
                page_size=count,
                sort_by="created_at desc",
                experiment_id=experiment.experiment_id,
                namespace=settings.namespace,
            )
        return [_run_state(run) for run in listed.runs or []]

    def follow(self, run_id: str, report: Callable[[str, str], None]) -> RunState:
        """Waits for the end of a run.

        Args:
            run_id: The run.
            report: Is told each task's name and state whenever that changes.

        Returns:
            The last state.
        """
        seen: dict[str, str] = {}
        while True:
            state = self._patiently(run_id)
            for task, now in state.tasks.items():
                if seen.get(task) != now:
                    report(task, now)
            seen = state.tasks
            if state.ended:
                return state
            time.sleep(_POLL_SECONDS)

    def _patiently(self, run_id: str) -> RunState:
        """Asks again while the server is not there: the run does not depend on it."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_UnreachableError),
            wait=tenacity.wait_exponential(multiplier=1, max=30),
            stop=tenacity.stop_after_delay(_PATIENCE_SECONDS),
            reraise=True,
        )
        return retrying(self.state, run_id)

    def _pipeline_id(self, name: str) -> str | None:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        listed = self._client.list_pipelines(
            namespace=self._settings.namespace, filter=json.dumps({"predicates": [predicate]})
        )
        return listed.pipelines[0].pipeline_id if listed.pipelines else None


def _ask_for_health(host: str, token: str | None) -> None:
    config = kfp_server_api.Configuration(host=host.rstrip("/"))
    config.retries = False
    if token:
        config.api_key["authorization"] = token
        config.api_key_prefix["authorization"] = "Bearer"
    kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(config)).healthz_service_get_healthz()


class _UnreachableError(UserError):
    """The server is not there, or has trouble of its own; it may be back."""


@contextlib.contextmanager
def _explained(host: str | None) -> Iterator[None]:
    """Turns what the client raises into one line."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        reason = _api_reason(error)
        if (error.status or 0) >= _SERVER_TROUBLE:
            raise _UnreachableError(f"{host}: the server answers {error.status}: {reason}") from None
        hint = f"; set ${TOKEN_VARIABLE}" if error.status in (401, 403) else ""
        raise UserError(f"{host}: refused ({error.status}): {reason}{hint}") from None
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        text = " ".join(str(error).split())
        raise _UnreachableError(
            f"{host}: no Kubeflow Pipelines API answers there ({text}); check kubeflow.host"
        ) from None
    except ValueError as error:
        raise UserError(f"{host}: {' '.join(str(error).split())}") from None


def _api_reason(error: kfp_server_api.ApiException) -> str:
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        body = json.loads(error.body)
        return " ".join(str(body.get("error_message") or body.get("message") or body["error"]).split())
    return str(error.reason)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drops what the client prints and warns of."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run_state(run: Any) -> RunState:
    details = (run.run_details.task_details if run.run_details else None) or []
    own = [each for each in details if _is_of_the_pipeline(each.display_name)]
    own.sort(key=lambda each: str(each.start_time or each.create_time or ""))
    return RunState(
        run_id=run.run_id,
        name=run.display_name,
        state=str(run.state),
        created=run.created_at.isoformat(timespec="seconds") if run.created_at else "",
        tasks={each.display_name: str(each.state) for each in own},
        errors={each.display_name: str(each.error.message) for each in own if each.error},
    )


def _is_of_the_pipeline(name: str | None) -> bool:
    return bool(name) and name not in _OWN_NODES and not str(name).endswith(_SUFFIXES)
