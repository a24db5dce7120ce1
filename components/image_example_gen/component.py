"""The TFX component that reads labelled photos."""

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.placeholder import placeholder
from tfx.types import standard_artifacts

from components.image_example_gen import spec
from components.image_example_gen.driver import Driver
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.executor import Executor
from components.image_example_gen.spec import ImageExampleGenSpec, IngestReport

_DEFAULTS = IngestSettings()


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Turns a folder of labelled photos into sharded tf.Example records.

    Outputs: `examples` with the splits train, validation and test, and `report`, an IngestReport.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        input_base: str,
        version: str,
        settings: IngestSettings = _DEFAULTS,
        fingerprint: placeholder.Placeholder | None = None,
    ) -> None:
        """Sets up ingest of one data folder.

        Args:
            input_base: the data folder: a folder of images per class, with or without split folders above them.
            version: version of Trimline; part of the cache key, since TFX's cache does not see code.
            settings: what may be read, how it is split and when ingest gives up.
            fingerprint: that of the data folder, where the platform runs no driver that would find it.
        """
        # On Kubeflow, a parameter that is there but has no value would be missed.
        given = {spec.SHARDS: settings.shards, spec.FINGERPRINT: fingerprint}
        optional = {name: value for name, value in given.items() if value is not None}
        super().__init__(
            spec=ImageExampleGenSpec(
                input_base=input_base,
                version=version,
                max_side=settings.max_side,
                max_pixels=settings.max_pixels,
                validation_fraction=settings.validation_fraction,
                test_fraction=settings.test_fraction,
                max_quarantined=settings.max_quarantined,
                examples=types.Channel(type=standard_artifacts.Examples),
                report=types.Channel(type=IngestReport),
                **optional,
            )
        )
