"""Settings of the model and of its training: a typed tree that the Trainer receives as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Settings(BaseModel):
    """Base of every settings group: unknown keys are errors, and values do not change once they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_group_is_default(cls, value: Any) -> Any:
        """Reads `trainer:` with nothing under it, as in a settings file that is all comments, as the defaults."""
        return {} if value is None else value


class ModelSettings(Settings):
    """Which network is trained."""

    architecture: Literal["lean", "residual", "densenet", "separable", "pooling", "naive"] = Field(
        "lean",
        description="Network: lean (inverted residual blocks, the default), residual (plain residual blocks: more "
        "accurate, twice the weights, almost three times the multiply-accumulates), densenet (densely connected: "
        "further after few epochs, twice the time of each), or a rung of the ladder: separable (depthwise + "
        "pointwise), pooling (plain convolutions, pooled), naive (Flatten + dense head).",
    )
    width: float = Field(1.0, ge=0.1, le=4.0, description="Multiplier of the number of channels of every layer.")
    dropout: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the head's inputs dropped while training.")
    flip_average: bool = Field(
        False,
        description="Answer with the average over a photo and its mirror image (test-time augmentation): more accurate "
        "with the same weights, in twice the time.",
    )
    shift_average: bool = Field(
        False,
        description="Answer with the average over a photo and two copies shifted by a pixel (test-time augmentation): "
        "three times the time, with flip_average six times.",
    )


class AugmentationSettings(Settings):
    """Random changes of the training images; never of the images that are evaluated."""

    flip: bool = Field(True, description="Mirror half of the images left to right.")
    shift: float = Field(0.0625, ge=0.0, le=0.5, description="Largest shift, as a share of the image's side.")
    color: float = Field(
        0.0, ge=0.0, lt=1.0, description="Largest change of brightness, contrast and saturation, as a share."
    )
    erase: float = Field(
        0.0, ge=0.0, lt=1.0, description="Side of the square that is greyed (cutout), as a share of the image's side."
    )


class DistillationSettings(Settings):
    """A larger network, trained first, whose probabilities the shipped network learns along with the labels."""

    teacher: Literal["none", "lean", "residual", "densenet", "separable", "pooling", "naive"] = Field(
        "none", description="Architecture of the teacher; none trains without one."
    )
    width: float = Field(2.0, ge=0.1, le=4.0, description="Width multiplier of the teacher.")
    epochs: int | None = Field(None, ge=1, le=10_000, description="Epochs of the teacher; unset: trainer.epochs.")
    weight: float = Field(0.7, ge=0.0, le=1.0, description="Share of the loss that the teacher's probabilities make.")
    temperature: float = Field(2.0, gt=0.0, le=100.0, description="Divides the logits of both before they compare.")


class SamSettings(Settings):
    """Sharpness-aware minimisation: steps that lower the worst loss near the weights; each takes twice the time."""

    rho: float = Field(
        0.0, ge=0.0, le=10.0, description="Distance from the weights at which the gradient is taken; 0: plain steps."
    )
    share: float = Field(0.2, gt=0.0, le=1.0, description="Share of trainer.epochs, the last ones, with such steps.")


class ProgressiveResizingSettings(Settings):
    """Progressive resizing: the first epochs see smaller images, whose steps take less time."""

    initial_scale: float = Field(
        1.0, ge=0.1, le=1.0, description="Side of the first images, as a share of data.image_size; 1: full size always."
    )
    share: float = Field(
        0.75,
        gt=0.0,
        lt=1.0,
        description="Share of trainer.epochs, the first ones, with smaller images: three sizes, a third of it each.",
    )


class TrainerSettings(Settings):
    """How long and how the network is trained."""

    epochs: int = Field(30, ge=1, le=10_000, description="Most passes over the training images.")
    batch_size: Literal["auto"] | int = Field(
        "auto",
        description="Images per optimizer step, 1 to 8192; auto: 64, and with fewer than 1,024 training photos a "
        "sixteenth of them, at least 8.",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with Nesterov momentum 0.9.")
    learning_rate: float = Field(
        0.006, gt=0.0, le=10.0, description="Peak of the cosine schedule; sgd wants some ten times more than adamw."
    )
    warmup_share: float = Field(0.1, ge=0.0, lt=1.0, description="Share of all steps in which the rate rises from 0.")
    weight_decay: float = Field(
        0.01, ge=0.0, le=1.0, description="Decoupled decay of the kernels; sgd wants some twenty times less than adamw."
    )
    label_smoothing: float = Field(0.05, ge=0.0, lt=1.0, description="Label smoothing of the cross-entropy.")
    ema: float = Field(
        0.0, ge=0.0, lt=1.0, description="Decay of the moving average of the weights, which is what is kept; 0: none."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: every class counts the same, however few photos it has, in the loss and in the accuracy "
        "that chooses the best epoch and the variant that ships.",
    )
    patience: int = Field(
        10, ge=1, description="Epochs without a better one on the validation photos before training stops."
    )
    augmentation: AugmentationSettings = AugmentationSettings()
    distillation: DistillationSettings = DistillationSettings()
    progressive_resizing: ProgressiveResizingSettings = ProgressiveResizingSettings()
    sam: SamSettings = SamSettings()

    @field_validator("batch_size")
    @classmethod
    def _batch_size_in_range(cls, value: str | int) -> str | int:
        if isinstance(value, int) and not 1 <= value <= 8192:
            raise ValueError("must be auto or a number of images from 1 to 8192")
        return value


class AccelerationSettings(Settings):
    """How the steps are executed: each trick is a switch, and `auto` measures which to use."""

    mode: Literal["auto", "manual"] = Field(
        "auto",
        description="auto times a few steps of each candidate on this device and keeps the fastest; "
        "manual uses the switches below as they are, and so does auto on several hosts.",
    )
    jit: bool = Field(False, description="Compile the step with XLA (manual mode).")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Compute precision; float16 uses loss scaling (manual mode)."
    )
    steps_per_execution: int = Field(1, ge=1, le=1000, description="Steps fused into one call (manual mode).")
    fold_batch_norm: bool = Field(
        True, description="Fold every batch normalisation into the convolution before it in what is exported."
    )
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = Field(
        "auto",
        description="tf.distribute strategy: auto takes multi_worker with TF_CONFIG (not for trimline run), mirrored "
        "with several GPUs.",
    )


class TrainingSettings(Settings):
    """All that the Trainer's run_fn needs to know."""

    image_size: int = Field(ge=8, le=1024)
    seed: int | None = None
    model: ModelSettings = ModelSettings()
    trainer: TrainerSettings = TrainerSettings()
    acceleration: AccelerationSettings = AccelerationSettings()
