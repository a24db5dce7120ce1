import json
from types import SimpleNamespace

import pytest
import tf_keras as keras

from tests.transformed_files import striped_images, write_transformed
from trainer_module import export, features, run
from trainer_module.settings import AccelerationSettings, ModelSettings, TrainerSettings, TrainingSettings


@pytest.fixture
def fn_args(tmp_path):
    """What TFX's Trainer gives: splits, vocabulary, directories."""
    vocabulary = tmp_path / "transform/transform_fn/assets" / features.LABEL_VOCABULARY
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_text("lying\nstanding\n")
    settings = TrainingSettings(
        image_size=16,
        model=ModelSettings(architecture="pooling", width=0.1),
        trainer=TrainerSettings(epochs=1, batch_size=32),
        acceleration=AccelerationSettings(mode="manual"),
    )
    return SimpleNamespace(
        custom_config={
            "training": settings.model_dump_json(),
            "checkpoints": str(tmp_path / "checkpoints"),
            "version": "1",
        },
        train_files=[write_transformed(tmp_path / "train.gz", *striped_images(32, 16))],
        eval_files=[write_transformed(tmp_path / "validation.gz", *striped_images(32, 16, seed=1))],
        transform_output=str(tmp_path / "transform"),
        serving_model_dir=str(tmp_path / "model/Format-Serving"),
        model_run_dir=str(tmp_path / "model_run"),
    )


@pytest.mark.component  # The Trainer's part of the pipeline.
def test_the_checkpoint_stays_until_the_model_is_exported_folded_or_not(fn_args, tmp_path, caplog):
    folding = fn_args.custom_config["training"]
    settings = json.loads(folding)
    settings["acceleration"]["fold_batch_norm"] = False
    fn_args.custom_config["training"] = json.dumps(settings)
    # Something is in the way of the model.
    (tmp_path / "model").touch()
    with pytest.raises(OSError, match="model"):
        run.run_fn(fn_args)
    fn_args.custom_config["training"] = folding
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    (tmp_path / "model").unlink()
    (tmp_path / "model").mkdir()
    caplog.set_level("INFO")
    run.run_fn(fn_args)
    assert f"{checkpoint}: the training goes on after epoch 1" in caplog.text
    assert not list((tmp_path / "checkpoints").iterdir())
    record = json.loads((tmp_path / "model" / run.TRAINING_FILE).read_text())
    assert record["epochs"] == 1
    model = keras.models.load_model(tmp_path / "model" / export.KERAS_MODEL_FILE)
    assert model.count_params() == record["params"]
    assert (tmp_path / "model/Format-Serving/saved_model.pb").exists()
