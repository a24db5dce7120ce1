"""The facts of a run, collected once from the metadata store and the artifacts; views only arrange them."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from components.release_gate.engine import FIDELITY
from components.release_gate.results import read_mistakes
from pipeline.gates import evaluator_id
from pipeline.metadata import Metadata, Outputs
from pipeline.report.lineage import Lineage, draw_lineage
from pipeline.report.photos import Photo, find_photos, sample_photos
from pipeline.report.statistics import Drift, NumericFeature, drift, numeric_features
from trainer_module import features
from trainer_module.mistake_metrics import LOST_PHOTOS, MISTAKES, Mistake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.metadata import ComponentRun
    from pipeline.workspace import Workspace

_logger = logging.getLogger(__name__)
_Facts = TypeVar("_Facts")


@dataclasses.dataclass(frozen=True)
class DataDrift:
    """How far the photos are from those of an earlier run.

    Attributes:
        run: The earlier run; None if there was none.
        same: Whether it had the very same photos.
        measurements: What TFDV measured where they are not the same.
        earlier: TFDV's figures of the earlier photos.
    """

    run: str | None
    same: bool = False
    measurements: Sequence[Drift] = ()
    earlier: Sequence[NumericFeature] = ()


@dataclasses.dataclass(frozen=True)
class ShownMistake:
    """A photo that the shipped model answers wrongly.

    Attributes:
        photo: The photo.
        answer: Name of the class that was answered.
        confidence: Probability of the answer.
        true_probability: Probability of the true class.
    """

    photo: Photo
    answer: str
    confidence: float
    true_probability: float


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the report and the model card tell.

    Attributes:
        summary: The content of summary.json; what a run did not get to is None there.
        components: What has become of each component.
        trouble: Why the run failed; "" if it did not.
        ladder: The content of ladder.json; None if there is none.
        lineage: What was made from what.
        numbers: TFDV's figures of the photos.
        drift: What has changed about the photos since the run before.
        samples: A few photos of each class.
        mistakes: The shipped model's most confident mistakes on test photos.
        lost: The same of the photos that the float model gets right.
        missing: Why a part of the above could not be collected, by the name of its attribute.
    """

    summary: Mapping[str, Any]
    components: Sequence[ComponentRun]
    trouble: str = ""
    ladder: Mapping[str, Any] | None = None
    lineage: Lineage | None = None
    numbers: Sequence[NumericFeature] = ()
    drift: DataDrift | None = None
    samples: Sequence[Photo] = ()
    mistakes: Sequence[ShownMistake] = ()
    lost: Sequence[ShownMistake] = ()
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)


_NO_MISTAKES: tuple[Sequence[ShownMistake], Sequence[ShownMistake]] = ((), ())


def collect(workspace: Workspace, summary: Mapping[str, Any], trouble: str = "") -> Facts:
    """Collects the facts of a run.

    Whatever cannot be read, for example because its artifact was removed, is missing with its reason; nothing raises.

    Args:
        workspace: Output directory of the run.
        summary: What `summary.gather` returned, or summary.json says.
        trouble: Why the run failed; "" if it did not.

    Returns:
        The facts.
    """
    collector = _Collector()
    ladder = collector.take("ladder", lambda: _ladder(workspace), None)
    metadata = collector.take("lineage", lambda: Metadata(workspace.metadata_file), None)
    if metadata is None:
        return Facts(summary, (), trouble, ladder, missing=collector.missing)
    run = summary["run"]
    outputs = Outputs(metadata, run)
    mistakes = collector.take("mistakes", lambda: _mistakes(outputs, summary), _NO_MISTAKES)
    return Facts(
        summary=summary,
        components=tuple(outputs.components.values()),
        trouble=trouble,
        ladder=ladder,
        lineage=collector.take("lineage", lambda: draw_lineage(metadata.flows(run)), None),
        numbers=collector.take("numbers", lambda: _numbers(outputs), ()),
        drift=collector.take("drift", lambda: _drift(metadata, outputs, run), None),
        samples=collector.take("samples", lambda: _samples(outputs, summary), ()),
        mistakes=mistakes[0],
        lost=mistakes[1],
        missing=collector.missing,
    )


class _Collector:
    """Takes one fact after the other and notes what cannot be had."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def take(self, name: str, read: Callable[[], _Facts], otherwise: _Facts) -> _Facts:
        try:
            return read()
        except Exception as error:
            # Any: a report with a gap is worth more than none, and a run must not fail because of it.
            _logger.exception("the report goes without %s", name)
            self.missing[name] = " ".join(f"{type(error).__name__}: {error}".split())
            return otherwise


def _ladder(workspace: Workspace) -> dict[str, Any] | None:
    if not workspace.ladder_file.exists():
        return None
    return json.loads(workspace.ladder_file.read_text(encoding="utf-8"))


def _numbers(outputs: Outputs) -> Sequence[NumericFeature]:
    statistics = outputs.find("StatisticsGen", "statistics")
    return numeric_features(statistics.uri) if statistics else ()


def _drift(metadata: Metadata, outputs: Outputs, run: str) -> DataDrift | None:
    """Compares with the run before that got as far as statistics."""
    statistics, schema = outputs.find("StatisticsGen", "statistics"), outputs.find("SchemaGen", "schema")
    if not (statistics and schema):
        return None
    runs = metadata.runs()
    for earlier in reversed(runs[: runs.index(run)]):
        before = Outputs(metadata, earlier).find("StatisticsGen", "statistics")
        if before and before.id == statistics.id:
            return DataDrift(earlier, same=True)
        if before:
            measurements = drift(statistics.uri, before.uri, schema.uri)
            return DataDrift(earlier, measurements=measurements, earlier=numeric_features(before.uri))
    return DataDrift(None)


def _samples(outputs: Outputs, summary: Mapping[str, Any]) -> Sequence[Photo]:
    examples = outputs.find("ImageExampleGen", "examples")
    if not (examples and summary["images"]):
        return ()
    counts = summary["images"]["splits"].get(features.TRAIN_SPLIT, {})
    return sample_photos(examples.uri, features.TRAIN_SPLIT, list(counts))


def _mistakes(outputs: Outputs, summary: Mapping[str, Any]) -> tuple[Sequence[ShownMistake], Sequence[ShownMistake]]:
    examples = outputs.find("ImageExampleGen", "examples")
    evaluation = outputs.find(evaluator_id(FIDELITY, "tflite"), "evaluation")
    names = _class_names(summary)
    if not (examples and evaluation and names):
        return _NO_MISTAKES
    found = read_mistakes(evaluation.uri)
    photos = find_photos(
        examples.uri, features.TEST_SPLIT, {mistake.digest for mistakes in found.values() for mistake in mistakes}
    )
    mistakes, lost = (
        tuple(
            _shown(mistake, photos[mistake.digest], names)
            for mistake in found.get(kind, ())
            if mistake.digest in photos
        )
        for kind in (MISTAKES, LOST_PHOTOS)
    )
    return mistakes, lost


def _shown(mistake: Mistake, photo: Photo, names: Sequence[str]) -> ShownMistake:
    return ShownMistake(photo, names[mistake.answer], mistake.confidence, mistake.true_probability)


def _class_names(summary: Mapping[str, Any]) -> Sequence[str]:
    """Returns the names of the shipped model's classes, in the order of their indices."""
    evaluations = (summary["gates"] or {}).get("evaluations", ())
    return next((measured["confusion_matrix"]["labels"] for measured in evaluations), ())
