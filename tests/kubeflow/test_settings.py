"""What is refused before anything is compiled."""

import pytest

from pipeline.config import load_settings
from tests.kubeflow.conftest import ON_KUBEFLOW, QUICK, assignments, trimline
from trainer_module.errors import UserError


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        (
            "kubeflow.resources.trainer={gpu_type: nvidia.com/gpu}",
            ["kubeflow.resources.trainer", "gpu is 0", "how many"],
        ),
        ("kubeflow.resources.trainer={gpu: 1, gpu_type: A100}", ["resource name such as nvidia.com/gpu", "A100"]),
        ("kubeflow.resources.trainer.memory=lots", ["kubeflow.resources.trainer.memory", "8Gi"]),
        ("kubeflow.resources.trainer.gpu=-1", ["kubeflow.resources.trainer.gpu", "0 to 64"]),
        ("kubeflow.resources.training.gpu=1", ["unknown setting kubeflow.resources.training", "trainer, compression"]),
        (
            "kubeflow.resources.push={tolerations: [{operator: Equal, key: a}]}",
            ["has a value if its operator is Equal"],
        ),
        ("kubeflow.pipeline_root=/data/root", ["kubeflow.pipeline_root", "minio://BUCKET/PATH"]),
        ("kubeflow.pipeline_root=https://bucket/x", ["kubeflow.pipeline_root", "object store"]),
        ("kubeflow.volumes=[{claim: a, mount_path: /a}, {claim: a, mount_path: /b}]", ["same claim is given twice"]),
        ("kubeflow.volumes=[{claim: a, mount_path: a}]", ["kubeflow.volumes", "absolute path"]),
        ("kubeflow.secrets=[{name: store}]", ["needs env ({key: VARIABLE}) or mount_path"]),
        ("kubeflow.image='two words'", ["name of an image"]),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(assignment, parts):
    with pytest.raises(UserError) as caught:
        load_settings(None, (assignment,))
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(("written", "read"), [("2", "2"), ("0.5", "0.5"), ("500m", "500m"), ("'2'", "2")])
def test_an_amount_may_be_a_number(written, read):
    settings = load_settings(None, (f"kubeflow.resources.trainer.cpu={written}",))
    assert settings.kubeflow.resources.trainer.cpu == read


@pytest.mark.parametrize(
    "secrets",
    ["[{name: wJalrXUtnFEMI/K7MDENG, mount_path: /s}]", "[{name: store, env: {key: wJalrXUtnFEMI/K7MDENG}}]"],
)
def test_a_secrets_value_instead_of_its_name_is_refused_and_not_repeated(secrets):
    with pytest.raises(UserError) as caught:
        load_settings(None, (f"kubeflow.secrets={secrets}",))
    assert "name" in str(caught.value)
    assert "wJalr" not in str(caught.value)


@pytest.mark.component
@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"kubeflow.image": "null"}, "kubeflow.image is not set"),
        ({"kubeflow.pipeline_root": "null"}, "kubeflow.pipeline_root is not set"),
        ({"data.image_size": "auto"}, "data.image_size is auto"),
        ({"data.path": "/home/me/photos"}, "data.path = /home/me/photos: must be a folder on a volume of the pods"),
        ({"data.path": "/mnt/photos/../../etc"}, "must be a folder on a volume"),
        ({"push.tflite_dir": "null"}, "push.tflite_dir is not set"),
        ({"push.saved_model_dir": "s3://bucket/models"}, "or a gs:// URI"),
        ({"kubeflow.checkpoints_dir": "/scratch"}, "kubeflow.checkpoints_dir = /scratch"),
        ({"kubeflow.volumes": "[]"}, "name some in kubeflow.volumes"),
    ],
)
def test_what_pods_could_not_follow_is_refused(changed, part, tmp_path):
    from pipeline.kubeflow.runner import compile_settings

    settings = QUICK | ON_KUBEFLOW | changed
    with pytest.raises(UserError) as caught:
        compile_settings(load_settings(None, tuple(f"{key}={value}" for key, value in settings.items())))
    assert part in str(caught.value)


@pytest.mark.component
def test_a_refusal_on_the_command_line_is_one_line_and_code_2_and_leaves_no_file(tmp_path):
    file = tmp_path / "pipeline.yaml"
    settings = QUICK | ON_KUBEFLOW | {"data.image_size": "auto"}
    result = trimline("kubeflow", "compile", "--output", file, *assignments(settings))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not file.exists()
