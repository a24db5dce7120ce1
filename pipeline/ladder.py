"""`trimline ladder`: the rungs on the user's data, as ladder.json and as a picture. A process of its own."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.ladder_table import LESSON
from pipeline.workspace import Workspace
from trainer_module import features
from trainer_module.files import write_whole
from trainer_module.processors import available_cores

if TYPE_CHECKING:
    from trainer_module.ladder import Splits


def run(workspace: Workspace) -> None:
    """Ingests and transforms the data, climbs the ladder, and writes ladder.json, ladder.png and the report anew.

    Args:
        workspace: Its settings file says on which data, and how long each rung trains.

    Raises:
        UserError: The images are too small for a rung, or several hosts are to train.
    """
    from pipeline.ladder_chart import draw
    from pipeline.local_runner import run_pipeline
    from pipeline.report.publication import publish
    from trainer_module.acceleration import device_name, require_one_host
    from trainer_module.ladder import climb, require_input_sizes

    settings = workspace.read_settings()
    require_one_host(settings.acceleration)
    require_input_sizes(settings.training().image_size)
    run_pipeline(settings, workspace, last_component="Transform")
    splits, classes = _transformed(workspace)

    def report(rung: str, epoch: int, seconds: float) -> None:
        progress = {"rung": rung, "epoch": epoch, "epochs": settings.trainer.epochs, "seconds": seconds}
        with workspace.ladder_progress_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(progress) + "\n")

    rungs = climb(settings.training(), splits, classes, report)
    result = {
        "rungs": rungs,
        "lesson": LESSON,
        "device": {"name": device_name(), "cores": available_cores()},
        "settings": settings.model_dump(mode="json"),
    }
    draw(rungs, workspace.ladder_picture)
    write_whole(workspace.ladder_file, json.dumps(result, indent=2))
    if workspace.summary_file.exists():
        publish(workspace, json.loads(workspace.summary_file.read_text(encoding="utf-8")))


def _transformed(workspace: Workspace) -> tuple[Splits, int]:
    import tensorflow_transform as tft

    from pipeline.metadata import Metadata, Outputs
    from trainer_module.input_pipeline import measure
    from trainer_module.ladder import Splits
    from trainer_module.preprocessing import class_names

    metadata = Metadata(workspace.metadata_file)
    outputs = Outputs(metadata, metadata.runs()[-1])
    examples = outputs.uri("Transform", "transformed_examples")
    splits = Splits(
        *(measure([f"{examples}/Split-{split}/*"]) for split in (features.TRAIN_SPLIT, features.TEST_SPLIT))
    )
    return splits, len(class_names(tft.TFTransformOutput(outputs.uri("Transform", "transform_graph"))))


if __name__ == "__main__":
    from pipeline.child import report_outcome

    logging.basicConfig(level=logging.INFO)
    target = Workspace(Path(sys.argv[1]))
    sys.exit(report_outcome(target, lambda: run(target)))
