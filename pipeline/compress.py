"""`trimline compress`: the compression alone, of any Keras classifier on the user's photos. A process of its own."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import logging
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.workspace import Workspace
from trainer_module import features
from trainer_module.errors import UserError

if TYPE_CHECKING:
    import tf_keras as keras

    from components.compression.data import Splits
    from components.compression.engine import FineTuning, Result
    from pipeline.class_order import ClassOrder
    from pipeline.config import PipelineSettings

SAVED_MODEL_DIRECTORY = "saved_model"
TFLITE_DIRECTORY = "tflite"
VARIANTS_DIRECTORY = "variants"
REPORT_FILE = "report.json"
ALLOW_CODE = "--allow-code"
LABELS = "--labels"


def run(workspace: Workspace, model_path: Path, *, allow_code: bool = False, labels_file: Path | None = None) -> None:
    """Ingests and transforms the data, compresses the model, and writes OUT/compressed/ as a whole.

    Args:
        workspace: Its settings file says on which data, and how.
        model_path: .keras or .h5 file, Keras' SavedModel, or a SavedModel that `trimline run` has pushed.
        allow_code: Whether the model may run code of its own on being loaded.
        labels_file: Names of the classes in the order of the model's answers, one a line; None where it knows them
            itself, or they are to be found out.

    Raises:
        UserError: The model is no image classifier of the data's classes, or see `engine.compress`.
    """
    from components.compression.engine import compress, fold_for
    from pipeline.class_order import read_labels
    from pipeline.local_runner import run_pipeline
    from trainer_module.repeatability import make_repeatable

    model, known_names = load_model(model_path, allow_code=allow_code)
    if labels_file is not None:
        known_names = read_labels(labels_file)
    settings = _with_image_size(workspace.read_settings(), model)
    # What compression would refuse is refused before all photos are read.
    fold_for(model, settings.compression.stages)
    _require_classes_of_folder(model, model_path, known_names, labels_file, settings)
    workspace.write_settings(settings)
    run_pipeline(settings, workspace, last_component="Transform")
    make_repeatable(settings.seed)
    splits, names, examples = _transformed(workspace, settings)
    order = _class_order(model, model_path, known_names, labels_file, splits, names)
    splits = splits.relabelled(order.of_labels(names))
    partial = workspace.compressed_partial
    shutil.rmtree(partial, ignore_errors=True)
    variants = partial / VARIANTS_DIRECTORY
    variants.mkdir(parents=True)
    fine_tuning = _fine_tuning(model, settings, order, examples, workspace)
    result = compress(
        model,
        splits,
        settings.compression,
        variants,
        fine_tuning=fine_tuning,
        class_names=order.names,
        seed=settings.seed or 0,
    )
    _write(result, splits, order, settings, partial)
    shutil.rmtree(workspace.compressed, ignore_errors=True)
    partial.rename(workspace.compressed)
    # Last, so that a disk that is full by then costs no fine-tuning.
    result.kept.clear()


def _fine_tuning(
    model: keras.Model, settings: PipelineSettings, order: ClassOrder, examples: str, workspace: Workspace
) -> FineTuning:
    from components.compression.engine import FineTuning
    from trainer_module.checkpoints import fingerprint

    weights = hashlib.sha256(b"".join(weights.tobytes() for weights in model.get_weights())).hexdigest()
    own = fingerprint(
        settings.training().model_dump(mode="json"),
        settings.compression.causes(),
        model.to_json(),
        weights,
        order.names,
        examples,
        version("trimline"),
    )
    return FineTuning(settings.training(), checkpoints=str(workspace.compression_checkpoints / own))


def require_there(path: Path) -> None:
    """Refuses a model that is not there, which needs none of the libraries that take seconds to load.

    Args:
        path: See `run`.

    Raises:
        UserError: Nothing is there.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such model; give a .keras or .h5 file or a SavedModel's directory")


def load_model(path: Path, *, allow_code: bool = False) -> tuple[keras.Model, list[str] | None]:
    """Loads an image classifier from a file or a directory.

    Args:
        path: See `run`. What Keras 3 has written is rebuilt of known layers.
        allow_code: See `run`.

    Returns:
        The model, and the names of its classes where it knows them.

    Raises:
        UserError: There is none, it holds code that is not allowed, or it is not from square RGB pixels to the
            probabilities of classes.
    """
    from pipeline import keras3
    from pipeline.model_trust import require_no_code

    require_there(path)
    if keras3.wrote(path):
        require_no_code(path, "models of Keras 3 are rebuilt of Keras' own layers, so replace it by some")
        theirs = keras3.read(path)
        _require_classifier(theirs.model, path)
        return theirs.rebuilt(), None
    if not allow_code:
        require_no_code(path)
    model, names = _load_with_names(path, allow_code=allow_code)
    _require_classifier(model, path)
    _require_probabilities_of_grey(model, path)
    return model, names


def _load_with_names(path: Path, *, allow_code: bool) -> tuple[keras.Model, list[str] | None]:
    import tf_keras as keras

    from trainer_module.export import ARCHITECTURE_FILE, load_serving_model

    if path.is_dir() and not (path / "keras_metadata.pb").exists():
        if (path / "saved_model.pb").exists() and not (path / ARCHITECTURE_FILE).exists():
            raise UserError(
                f"{path}: is a SavedModel without layers, as Keras 3's model.export() writes them; give its .keras file"
            )
        return load_serving_model(str(path))
    if path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: holds weights without the layers; give what model.save() writes")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not allow_code), None
    # Keras raises whatever its readers do.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: Keras cannot load it: {reason}; give a .keras or .h5 file") from None


def _require_classifier(model: Any, path: Path) -> None:
    from trainer_module.settings import TrainingSettings

    shapes = (getattr(model, "input_shape", None), getattr(model, "output_shape", None))
    image, answer = (shape if isinstance(shape, tuple) else () for shape in shapes)
    square = len(image) == 4 and image[1] is not None and image[1] == image[2] and image[3] == 3
    if not square or len(answer) != 2 or answer[1] is None:
        raise UserError(
            f"{path}: its input has shape {shapes[0]} and its output {shapes[1]}; a classifier from pixels "
            "[N, S, S, 3] in 0 to 255 to probabilities [N, C] is needed"
        )
    if answer[1] == 1:
        raise UserError(
            f"{path}: answers one number (sigmoid), not one for each class; make its last layer Dense(2, "
            "activation='softmax') and train that, or give that layer the weights (0, w) and (0, b) of the one number's"
        )
    low, high = (TrainingSettings.model_fields["image_size"].metadata[i] for i in (0, 1))
    if not low.ge <= image[1] <= high.le:
        raise UserError(f"{path}: its images are {image[1]} pixels wide; {low.ge} to {high.le} are possible")


def _require_probabilities_of_grey(model: keras.Model, path: Path) -> None:
    """Asks about one grey image: what answers no probabilities to that is known before all photos are read."""
    import numpy as np

    from pipeline.answers import require_probabilities

    grey = np.full((1, *model.input_shape[1:]), 128, np.float32)
    require_probabilities(np.asarray(model(grey, training=False), np.float32), path)


def _with_image_size(settings: PipelineSettings, model: keras.Model) -> PipelineSettings:
    data = settings.data.model_copy(update={"image_size": model.input_shape[1]})
    return settings.model_copy(update={"data": data})


def _require_classes_of_folder(
    model: keras.Model, path: Path, known: list[str] | None, labels_file: Path | None, settings: PipelineSettings
) -> None:
    """Compares the classes with the folders' names, which takes much less time than to read the photos."""
    from components.image_example_gen.engine.listing import list_images

    if settings.data.path is None:
        return
    files = list_images(settings.data.path).files
    names = sorted({file.class_name for file in files if file.split in (None, features.TRAIN_SPLIT)})
    _require_classes(model, path, known, labels_file, names)


def _require_classes(
    model: keras.Model, path: Path, known: list[str] | None, labels_file: Path | None, names: list[str]
) -> None:
    from pipeline.class_order import require_same_classes

    classes = model.output_shape[-1]
    if classes != len(names):
        raise UserError(f"{path}: answers {classes} classes, but the photos have {len(names)}; give photos of the same")
    if known is not None:
        require_same_classes(known, names, labels_file or path)


def _transformed(workspace: Workspace, settings: PipelineSettings) -> tuple[Splits, list[str], str]:
    """Loads the images, the names of their classes, and where the images are."""
    import tensorflow_transform as tft

    from components.compression.data import load_splits
    from pipeline.metadata import Metadata, Outputs
    from trainer_module.preprocessing import class_names

    metadata = Metadata(workspace.metadata_file)
    outputs = Outputs(metadata, metadata.runs()[-1])
    examples = outputs.uri("Transform", "transformed_examples")
    train, validation = (f"{examples}/Split-{split}/*" for split in (features.TRAIN_SPLIT, features.VALIDATION_SPLIT))
    splits = load_splits([train], [validation], settings.training().image_size, settings.seed or 0)
    return splits, class_names(tft.TFTransformOutput(outputs.uri("Transform", "transform_graph"))), examples


def _class_order(
    model: keras.Model,
    path: Path,
    known: list[str] | None,
    labels_file: Path | None,
    splits: Splits,
    names: list[str],
) -> ClassOrder:
    from pipeline.class_order import ClassOrder, find_order, require_knowledge

    _require_classes(model, path, known, labels_file, names)
    if known is None:
        return find_order(model, splits.calibration, names, path)
    order = ClassOrder(known, "model" if labels_file is None else "labels")
    require_knowledge(model, splits.calibration, order, names, path)
    return order


def _write(result: Result, splits: Splits, order: ClassOrder, settings: PipelineSettings, directory: Path) -> None:
    from components.compression.bundle import BundleContent, write_bundle
    from trainer_module.export import save_serving_model

    chosen = result.selected
    content = BundleContent(chosen.name, chosen.path, order.names, chosen.measurement, lineage={})
    write_bundle(content, directory / TFLITE_DIRECTORY)
    save_serving_model(
        result.model,
        str(directory / SAVED_MODEL_DIRECTORY),
        order.names,
        settings.training().image_size,
        fold=settings.acceleration.fold_batch_norm,
        images=splits.validation.images,
    )
    report = result.report | {"class_order": {"source": order.source, "names": order.names}}
    (directory / REPORT_FILE).write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    from pipeline.child import report_outcome

    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument(ALLOW_CODE, action="store_true")
    parser.add_argument(LABELS, type=Path)
    given = parser.parse_args()
    target = Workspace(given.root)
    compression = functools.partial(run, target, given.model, allow_code=given.allow_code, labels_file=given.labels)
    sys.exit(report_outcome(target, compression))
