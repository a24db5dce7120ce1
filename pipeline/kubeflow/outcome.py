"""What the end of a run means, as exit codes tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.launch import RunError

if TYPE_CHECKING:
    from pipeline.kubeflow.client import RunState

# States, as the API names them.
SUCCEEDED, SKIPPED, FAILED, CANCELED = "SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"
PUSHERS = ("PusherSavedModel", "PusherTFLite")


def was_pushed(state: RunState) -> bool:
    """Tells whether an ended run pushed its release; False if a gate refused it.

    Raises:
        RunError: It failed or was stopped, or the server does not say what became of the pushes.
    """
    if state.state != SUCCEEDED:
        failed = [name for name, task in state.tasks.items() if task == FAILED]
        what = "; ".join(f"{name}: {state.errors.get(name, 'no reason given')}" for name in failed)
        raise RunError(f"run {state.run_id} ended as {state.state}{f' ({what})' if what else ''}; see the tasks' logs")
    pushes = {state.tasks.get(name) for name in PUSHERS}
    if SKIPPED in pushes:
        return False
    if pushes != {SUCCEEDED}:
        raise RunError(f"run {state.run_id} ended, but the server does not say whether it was pushed; look there")
    return True
