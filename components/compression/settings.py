"""Settings of compression: a typed tree that the component receives as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from trainer_module.settings import Settings

Stage = Literal["quantize", "qat", "prune", "cluster", "prune_channels"]


class BudgetSettings(Settings):
    """What the shipped .tflite may cost; the smallest variant inside all limits is shipped."""

    max_bytes: int | None = Field(None, ge=1, description="Most bytes of the .tflite, counted as budget.size says.")
    size: Literal["file", "deflated"] = Field(
        "file",
        description="What max_bytes limits: file (what a device stores), deflated (what a download carries).",
    )
    max_latency_ms: float | None = Field(None, gt=0.0, description="Highest median latency, one thread, this machine.")
    max_accuracy_drop: float = Field(
        0.02, ge=0.0, le=1.0, description="Largest loss of validation accuracy against the float model; 0.02: 2 points."
    )


class TeachingSettings(Settings):
    """How much of the float parent's answers a fine-tuned variant learns along with the labels."""

    weight: float = Field(0.5, ge=0.0, le=1.0, description="Share of the loss that the parent's answers make; 0: none.")
    temperature: float = Field(2.0, gt=0.0, le=100.0, description="Divides the logits of both before they compare.")


class CompressionSettings(Settings):
    """How the model is made small."""

    stages: list[Stage] = Field(
        ["prune", "cluster", "quantize", "qat"],
        min_length=1,
        description="What is tried: prune (single weights, for size), prune_channels (whole, for speed), cluster "
        "(few distinct weights), quantize (after training), qat (quantisation-aware fine-tuning). Each preserves what "
        "those before it made, in the order prune, cluster, quantize.",
    )
    sparsity: Literal["auto"] | float = Field(
        0.5, description="prune: share of the weights that become zero, 0 to below 1; auto searches within the budget."
    )
    clusters: Literal["auto"] | int = Field(
        16, description="cluster: distinct weights of a layer, 2 to 256; auto searches within the budget."
    )
    channel_sparsity: float = Field(
        0.4, gt=0.0, lt=1.0, description="prune_channels: share of the multiply-accumulates that go."
    )
    bits: Literal["auto"] | list[Literal[2, 3, 4, 8]] = Field(
        [8, 4],
        description="qat: bits of a weight; a variant for each. auto searches, within the budget, for the bits of each "
        "layer. Depthwise kernels keep 8, and of 2 the smallest kernels 4; 3 are stored in 4, and deflate better.",
    )
    mean_bits: float | None = Field(
        None,
        ge=2.0,
        le=8.0,
        description="With bits: auto, bits of a weight on average, shared out where they do the least harm; unset: as "
        "few as stay within the budget, which takes several fine-tunings.",
    )
    input_type: Literal["uint8", "float32"] = Field(
        "uint8", description="What integer variants take and give; float32 for callers that cannot quantise."
    )
    epochs: int | None = Field(
        None, ge=1, le=10_000, description="Epochs of each fine-tuning; unset: a tenth of trainer.epochs, at least 2."
    )
    learning_rate: float = Field(
        0.001, gt=0.0, le=1.0, description="Peak learning rate of the fine-tuning (AdamW, cosine)."
    )
    channel_epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Epochs after prune_channels, with the trainer's optimizer and learning rate; "
        "unset: half of trainer.epochs, at least 2.",
    )
    distillation: TeachingSettings = TeachingSettings()
    time_budget_s: float | None = Field(
        None,
        gt=0.0,
        description="Seconds in which all fine-tunings should end: what would not is not begun, or is given up by its "
        "second epoch; unset: no limit.",
    )
    budget: BudgetSettings = BudgetSettings()

    def causes(self) -> dict[str, Any]:
        """Returns the settings, as JSON values, that finished fine-tunings depend on.

        How long one may go on is not among them, and the budget only where a stage searches within it.
        """
        searches = "auto" in (self.sparsity, self.clusters, self.bits)
        return self.model_dump(mode="json", exclude={"time_budget_s"} if searches else {"time_budget_s", "budget"})

    @field_validator("stages")
    @classmethod
    def _each_once(cls, stages: list[Stage]) -> list[Stage]:
        if len(set(stages)) < len(stages):
            raise ValueError("names a stage twice")
        return stages

    @field_validator("bits")
    @classmethod
    def _some_bits(cls, value: str | list[int]) -> str | list[int]:
        if not value:
            raise ValueError("must be auto or name some number of bits")
        return value

    @field_validator("mean_bits")
    @classmethod
    def _mean_of_what_is_shared_out(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("bits") != "auto":
            raise ValueError("needs compression.bits=auto: a list gives every layer the same")
        return value

    @field_validator("sparsity")
    @classmethod
    def _sparsity_in_range(cls, value: str | float) -> str | float:
        if not isinstance(value, str) and not 0 <= value < 1:
            raise ValueError("must be auto or a share from 0 to below 1")
        return value

    @field_validator("clusters")
    @classmethod
    def _clusters_in_range(cls, value: str | int) -> str | int:
        if not isinstance(value, str) and not 2 <= value <= 256:
            raise ValueError("must be auto or a number from 2 to 256")
        return value
