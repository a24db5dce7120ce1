import pytest

from pipeline.config import PipelineSettings, auto_image_size, load_settings
from pipeline.settings_file import commented_settings
from trainer_module.errors import UserError


def test_defaults_are_valid():
    assert load_settings() == PipelineSettings()


def test_assignments_win_over_the_file_and_later_over_earlier(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("trainer: {epochs: 3, batch_size: 8}\nseed: 1\n")
    settings = load_settings(file, ("trainer.epochs=4", "trainer.epochs=5"))
    assert (settings.trainer.epochs, settings.trainer.batch_size, settings.seed) == (5, 8, 1)


def test_an_assignment_changes_one_group_also_where_an_anchor_of_the_file_stands_for_several(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("kubeflow: {resources: {trainer: &gpu {gpu: 1}, compression: *gpu}}\n")
    resources = load_settings(file, ("kubeflow.resources.trainer.gpu=2",)).kubeflow.resources
    assert (resources.trainer.gpu, resources.compression.gpu) == (2, 1)


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("trainer.epochs=0", ["trainer.epochs = 0", "1 to 10000"]),
        ("trainer.epoch=3", ["unknown setting trainer.epoch", "epochs, batch_size"]),
        ("nothing=3", ["unknown setting nothing", "seed, data, model"]),
        ("data.image_size=4", ["data.image_size = 4", "auto", "8 to 1024"]),
        ("data.image_size=large", ["data.image_size = 'large'", "auto", "8 to 1024"]),
        ("model.architecture=big", ["model.architecture = 'big'", "lean", "naive"]),
        ("model.width=9", ["model.width = 9", "0.1 to 4"]),
        ("trainer.dropout=1", ["unknown setting trainer.dropout"]),
        ("model.dropout=1", ["model.dropout = 1", "0 to below 1"]),
        ("compression.stages=[shrink]", ["compression.stages", "shrink", "quantize"]),
        ("compression.stages=[]", ["compression.stages = []"]),
        ("compression.mean_bits=4.5", ["compression.mean_bits = 4.5", "compression.bits=auto"]),
        ("compression={bits: auto, mean_bits: 9}", ["compression.mean_bits = 9", "2 to 8"]),
        ("trainer=3", ["trainer = 3"]),
        ("trainer.epochs", ["--set trainer.epochs", "KEY=VALUE"]),
        ("=3", ["--set =3", "KEY=VALUE"]),
        ("seed=-1", ["seed = -1"]),
        ("seed=[", ["--set seed=[", "not valid YAML"]),
        ("trainer={epochs: 3, epochs: 4}", ["--set trainer={", "epochs is given a second time"]),
        ("trainer={yes: 4}", ["--set trainer={", "the key 'yes'", "bool", "quote it"]),
        ("kubeflow.experiment=2026-02-30", ["--set kubeflow.experiment=2026-02-30", "out of range", "quote it"]),
        ("gate.max_class_drop=2", ["gate.max_class_drop = 2", "0 to 1"]),
        ("gate.min_examples_per_slice=0", ["gate.min_examples_per_slice = 0", "at least 1"]),
        ("push.keep_versions=0", ["push.keep_versions = 0", "at least 1"]),
        ("serving.name=a b", ["serving.name = 'a b'"]),
    ],
)
def test_a_bad_setting_names_itself_and_what_is_valid(assignment, parts):
    with pytest.raises(UserError) as caught:
        load_settings(None, (assignment,))
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"trainer: [", "not valid YAML"),
        (b"- 1", "must hold settings"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"trainer:\n  epochs: 3\nseed: 1\ntrainer:\n  width: 2\n", "line 4: trainer is given a second time"),
        (b"trainer:\n  epochs: 3\n  'epochs': 3\n", "line 3: epochs is given a second time"),
        (b"seed: 1\ntrue: 1\n", "line 2: .* the key 'true' as bool"),
        (b"kubeflow:\n  experiment: 2026-02-30\n", "line 2: '2026-02-30' cannot be read: day is out of range"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, part):
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=part) as caught:
        load_settings(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_what_an_anchor_brings_may_be_replaced(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "kubeflow: {resources: {trainer: &gpu {gpu: 1, cpu: '2'}, compression: &more {<<: *gpu, gpu: 3}, "
        "push: {<<: *more, cpu: '4'}}}\n"
    )
    resources = load_settings(file).kubeflow.resources
    assert (resources.compression.gpu, resources.push.gpu, resources.push.cpu) == (3, 3, "4")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load_settings(tmp_path / "absent.yaml")


def test_a_push_directory_may_be_a_uri():
    settings = load_settings(None, ("push.tflite_dir=gs://bucket/models",))
    assert settings.push.tflite_dir == "gs://bucket/models"


def test_settings_survive_the_way_through_a_file():
    settings = load_settings(None, ("trainer.epochs=7", "data.path=/photos", "gate.max_drop=0.5"))
    assert PipelineSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(("side", "size"), [(8, 16), (16, 16), (32, 32), (33, 40), (95, 96), (4000, 96)])
def test_auto_image_size_follows_the_photos_within_limits(side, size):
    assert auto_image_size(side) == size


def test_the_commented_file_shows_every_default_and_loads(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(commented_settings())
    assert load_settings(file) == PipelineSettings()
    lines = commented_settings().splitlines()
    file.write_text("\n".join(line if "##" in line else line.replace("# ", "", 1) for line in lines))
    assert "epochs: 30" in [line.strip() for line in file.read_text().splitlines()]
    assert load_settings(file) == PipelineSettings()
