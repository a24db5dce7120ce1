"""What the stages of compression work with and what they make."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import tf_keras as keras

    from components.compression.data import LabelledImages
    from components.compression.errors import VariantError
    from components.compression.fine_tuning import FineTuner
    from components.compression.kernels import Skipped
    from components.compression.settings import CompressionSettings

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A variant to be made.

    Attributes:
        name: Its name.
        model: The float model behind it.
        convert: Makes the content of its .tflite file; may raise VariantError.
        integer: Whether it must compute in integers alone.
        sparsity: Share of zeros that its file must have.
        clusters: Most distinct weights of a clustered kernel, and how many kernels are clustered.
        larger: Name of the variant than which it must be smaller when deflated.
    """

    name: str
    model: keras.Model
    convert: Callable[[], bytes]
    integer: bool = False
    sparsity: float = 0.0
    clusters: tuple[int, int] | None = None
    larger: str | None = None


@dataclasses.dataclass(frozen=True)
class Staged:
    """What a stage made.

    Attributes:
        model: The model.
        note: What was done, as JSON-ready values.
        clustered: Names of the layers whose kernels are clustered.
        clusters: Most distinct weights of each of them.
        skipped: Layers left out as far as the stage went here, besides those that it leaves out in any case.
    """

    model: keras.Model
    note: dict[str, Any]
    clustered: tuple[str, ...] = ()
    clusters: int = 0
    skipped: tuple[Skipped, ...] = ()


@dataclasses.dataclass
class Job:
    """What the stages work with, and what they note on the way.

    Attributes:
        model: The parent as it came; the folded one is `folded`.
        folded: The parent without batch normalisation; None if no stage needs it.
        settings: What is wanted.
        representative: uint8 images [M, S, S, 3] that calibrate.
        calibration: Training images with labels, for what is measured before any fine-tuning.
        validation: The images that decide.
        accuracy: What the budget limits: of probabilities [N, C] and labels [N], a share.
        parent_accuracy: That of the parent on the validation images.
        scratch: Existing directory for the converters.
        quantizer: Names the better of the two post-training quantisers, once both have been measured.
        tuner: Fine-tunes; None if no stage needs it.
        labels: Names of the classes, a line for each, which every file then holds; empty if they are not known.
        skipped: Layers left out, by stage.
        dropped: Stages and variants that came to nothing, with the reason.
        notes: What each stage did, as JSON-ready values.
    """

    model: keras.Model
    folded: keras.Model | None
    settings: CompressionSettings
    representative: np.ndarray
    calibration: LabelledImages
    validation: LabelledImages
    accuracy: Callable[[np.ndarray, np.ndarray], float]
    parent_accuracy: float
    scratch: Path
    quantizer: Callable[[], str]
    tuner: FineTuner | None
    labels: str = ""
    skipped: dict[str, list[Skipped]] = dataclasses.field(default_factory=dict)
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def wants(self, stage: str) -> bool:
        """Tells whether a stage is among those wanted."""
        return stage in self.settings.stages

    def drop(self, name: str, error: VariantError) -> None:
        """Notes that a stage or variant came to nothing."""
        self.dropped[name] = str(error)
        _logger.warning("Compression: %s is dropped: %s", name, error)
