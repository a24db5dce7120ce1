"""The batches that a training is fed: of one size, weighted by class, and shared out among workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from trainer_module import input_pipeline, optimization

if TYPE_CHECKING:
    import numpy as np

    from trainer_module.settings import TrainerSettings, TrainingSettings

_AUTO_SIZE = 64
# Few photos in large batches are few steps: with 30 epochs of one each nothing is learned.
_AUTO_STEPS = 16
# Batch normalisation takes its statistics from the images of one batch.
_LEAST_AUTO_SIZE = 8


def batch_size(settings: TrainerSettings, images: int) -> int:
    """Returns the number of images in a training batch.

    Args:
        settings: Of the training.
        images: Training images, at least 1.
    """
    if isinstance(settings.batch_size, int):
        return min(settings.batch_size, images)
    return min(_AUTO_SIZE, max(_LEAST_AUTO_SIZE, images // _AUTO_STEPS), images)


class Batches:
    """The batches of both splits, as the settings want them.

    Attributes:
        steps: Training batches in an epoch.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        train_records: input_pipeline.Records,
        validation_records: input_pipeline.Records,
        classes: int,
        seed: int | None = None,
    ) -> None:
        """Decides on the size of the batches and the weights of the classes.

        Args:
            settings: Of the training.
            train_records: The training split; not empty.
            validation_records: The validation split.
            classes: Number of classes C.
            seed: Of order and changes of the training batches, where the settings have none.

        Raises:
            UserError: If all classes are to count the same, and one has no image.
        """
        self._settings = settings
        self._seed = seed if settings.seed is None else settings.seed
        self._train_records = train_records
        self._validation_records = validation_records
        self._size = batch_size(settings.trainer, train_records.count)
        self.steps = train_records.count // self._size
        self._class_weights: np.ndarray | None = None
        self._validation_weights: np.ndarray | None = None
        if settings.trainer.class_weights == "balanced":
            self._class_weights = optimization.class_weights(input_pipeline.label_counts(train_records, classes))
            # Its own, because a validation/ folder may hold other shares of the classes.
            self._validation_weights = optimization.weights_of_present(
                input_pipeline.label_counts(validation_records, classes)
            )

    def training(self, first_epoch: int) -> tf.data.Dataset:
        """Returns the endless stream of augmented batches from the given epoch on.

        Its elements are (float32 images [N, S, S, 3] in [0, 255], int64 labels [N]), with class weights followed by
        their float32 weights [N].
        """
        return _prepared(self._augmented(first_epoch), self._class_weights)

    def validation(self) -> tf.data.Dataset:
        """Returns one pass over the validation split; its elements are like those of `training`.

        With class weights each class counts the same in this split too, so that weighted accuracy is balanced accuracy.
        """
        batches = input_pipeline.evaluation_batches(self._validation_records, self._settings.image_size, self._size)
        return _prepared(batches, self._validation_weights)

    def probe(self) -> tuple[np.ndarray, ...]:
        """Returns one batch of `training`, to try steps on."""
        return next(self.training(0).take(1).as_numpy_iterator())

    def _augmented(self, first_epoch: int) -> tf.data.Dataset:
        return input_pipeline.training_batches(
            self._train_records,
            self._settings.image_size,
            self._size,
            self._settings.trainer.augmentation,
            self._seed,
            first_epoch=first_epoch,
        )


def _prepared(batches: tf.data.Dataset, class_weights: np.ndarray | None) -> tf.data.Dataset:
    if class_weights is not None:
        weights = tf.constant(class_weights)

        def weigh(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # Labels of no known class, -1, get no weight, where tf.gather would fail.
            return images, labels, tf.linalg.matvec(tf.one_hot(labels, weights.shape[0]), weights)

        batches = batches.map(weigh)
    options = tf.data.Options()
    # Every worker reads all files and takes its share of each batch: there may be fewer files than workers.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)
