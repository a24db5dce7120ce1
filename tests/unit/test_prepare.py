import os
from pathlib import Path

import pytest
from PIL import Image

from pipeline.config import load_settings
from pipeline.prepare import require_apart, require_destinations, resolve
from pipeline.workspace import Workspace
from trainer_module.errors import UserError


def _photos(root, sides):
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for index, side in enumerate(sides):
            Image.new("RGB", (side * 2, side), (index, 0, 0)).save(root / name / f"{index}.png")
    return root


def test_without_data_the_digits_are_written_and_not_mirrored(tmp_path):
    settings = resolve(load_settings(), Workspace(tmp_path))
    assert settings.data.path == tmp_path / "digits"
    assert settings.data.image_size == 16
    assert settings.trainer.augmentation.flip is False


def test_the_user_decides_on_mirroring(tmp_path):
    chosen = load_settings(None, ("trainer.augmentation.flip=true",))
    assert resolve(chosen, Workspace(tmp_path)).trainer.augmentation.flip is True
    photos = load_settings(None, (f"data.path={_photos(tmp_path / 'photos', [20])}",))
    assert resolve(photos, Workspace(tmp_path)).trainer.augmentation.flip is True


def test_training_images_that_are_too_small_for_the_network_are_refused(tmp_path):
    asked = ("trainer.progressive_resizing.initial_scale=0.5", "model.architecture=separable")
    with pytest.raises(UserError, match=r"initial_scale=0\.5 begins with 8 pixels"):
        resolve(load_settings(None, asked), Workspace(tmp_path))


def test_averaging_over_mirror_images_that_are_not_learned_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model\.flip_average=true .* trainer\.augmentation\.flip=false"):
        resolve(load_settings(None, ("model.flip_average=true",)), Workspace(tmp_path))
    both = load_settings(None, ("model.flip_average=true", "trainer.augmentation.flip=true"))
    assert resolve(both, Workspace(tmp_path)).model.flip_average is True


def test_the_input_size_follows_the_typical_shorter_side(tmp_path):
    photos = _photos(tmp_path / "photos", [20, 50, 300])
    settings = load_settings(None, (f"data.path={photos}",))
    assert resolve(settings, Workspace(tmp_path)).data.image_size == 56


def test_the_input_size_follows_what_ingest_leaves_of_the_photos(tmp_path, recwarn):
    photos = _photos(tmp_path / "photos", [1000])
    settings = load_settings(None, (f"data.path={photos}", "data.max_side=64"))
    assert resolve(settings, Workspace(tmp_path)).data.image_size == 32
    assert not recwarn.list


def test_the_input_size_leaves_ingest_twice_as_many_pixels(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (200, 200)).save(tmp_path / "photos" / name / "square.png")
    options = (f"data.path={tmp_path}/photos", "data.max_side=70")
    assert resolve(load_settings(None, options), Workspace(tmp_path)).data.image_size == 35
    with pytest.raises(UserError, match=r"data\.max_side=70 is less than twice data\.image_size=36"):
        resolve(load_settings(None, (*options, "data.image_size=36")), Workspace(tmp_path))


def test_a_very_large_photo_is_not_warned_of(tmp_path, recwarn):
    photos = _photos(tmp_path / "photos", [20])
    Image.new("1", (10_000, 9_500)).save(photos / "cat" / "large.png")
    resolve(load_settings(None, (f"data.path={photos}",)), Workspace(tmp_path))
    assert not recwarn.list


def test_a_data_folder_that_no_settings_can_name_is_refused(tmp_path):
    photos = tmp_path / os.fsdecode(b"caf\xe9")
    _photos(photos, [20])
    settings = load_settings()
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"path": photos})})
    with pytest.raises(UserError, match=r"caf\\xe9: the path of the data folder is no UTF-8"):
        resolve(settings, Workspace(tmp_path))


@pytest.mark.parametrize("output", ["photos", "photos/out", "photos/cat/out", "link"])
def test_an_output_in_the_data_folder_is_refused(tmp_path, output):
    photos = _photos(tmp_path / "photos", [20])
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(UserError, match="lies in the data folder"):
        require_apart(photos, tmp_path / output)
    require_apart(photos, tmp_path / "out")
    require_apart(photos, tmp_path)
    require_apart(photos, photos / ".out")
    require_apart(None, tmp_path / output)


def test_a_data_folder_in_the_home_of_nobody_is_refused(tmp_path):
    photos = Path("~nobody-of-that-name/photos")
    with pytest.raises(UserError, match="~nobody-of-that-name/photos: there is no user of that name"):
        require_apart(photos, tmp_path)
    with pytest.raises(UserError, match="~nobody-of-that-name/photos: there is no user of that name"):
        resolve(load_settings(None, (f"data.path={photos}",)), Workspace(tmp_path))


def test_a_destination_in_the_home_of_nobody_is_refused():
    with pytest.raises(UserError, match="~nobody-of-that-name/models: there is no user of that name"):
        require_destinations(load_settings(None, ("push.tflite_dir=~nobody-of-that-name/models",)).push)


def test_links_that_go_round_in_circles_are_refused_by_who_opens_them(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    require_apart(tmp_path / "loop", tmp_path / "out")
    with pytest.raises(UserError, match="loop: cannot be opened"):
        resolve(load_settings(None, (f"data.path={tmp_path}/loop",)), Workspace(tmp_path / "out"))


def test_a_given_input_size_is_kept(tmp_path):
    photos = _photos(tmp_path / "photos", [20])
    settings = load_settings(None, (f"data.path={photos}", "data.image_size=48"))
    assert resolve(settings, Workspace(tmp_path)).data.image_size == 48


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    _photos(tmp_path / "photos", [20])
    monkeypatch.chdir(tmp_path)
    assert resolve(load_settings(None, ("data.path=photos",)), Workspace(tmp_path)).data.path == tmp_path / "photos"


def test_relative_destinations_become_absolute(tmp_path, monkeypatch):
    photos = _photos(tmp_path / "photos", [20])
    monkeypatch.chdir(tmp_path)
    given = (f"data.path={photos}", "push.tflite_dir=served/tflite", "push.saved_model_dir=gs://bucket/models")
    push = resolve(load_settings(None, given), Workspace(tmp_path)).push
    assert push.tflite_dir == str(tmp_path / "served" / "tflite")
    assert push.saved_model_dir == "gs://bucket/models"


@pytest.mark.parametrize("key", ["push.saved_model_dir", "push.tflite_dir"])
def test_a_destination_below_a_file_is_refused_before_anything_runs(tmp_path, key):
    (tmp_path / "file").write_text("mine")
    push = load_settings(None, (f"{key}={tmp_path}/file/models",)).push
    with pytest.raises(UserError, match=rf"{key}=.*/file/models: .*/file is a file"):
        require_destinations(push)


def test_one_destination_for_both_artifacts_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    push = load_settings(None, ("push.saved_model_dir=models", f"push.tflite_dir={tmp_path}/models/")).push
    with pytest.raises(UserError, match="give each its own"):
        require_destinations(push)


def test_a_destination_without_access_is_refused_before_anything_runs(tmp_path, monkeypatch):
    # Root, as which the tests may run, has access to everything.
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    push = load_settings(None, (f"push.tflite_dir={tmp_path}/models",)).push
    with pytest.raises(UserError, match=rf"push\.tflite_dir=.*/models: {tmp_path} cannot be written to"):
        require_destinations(push)


def test_photos_that_cannot_be_opened_do_not_decide(tmp_path):
    photos = _photos(tmp_path / "photos", [40])
    Image.new("RGB", (90, 90)).save(photos / "cat" / "item.avif")
    whole = (photos / "cat" / "item.avif").read_bytes()
    # Without the item that it points to, Pillow's reader raises RuntimeError.
    (photos / "cat" / "item.avif").write_bytes(whole.replace(b"iloc", b"ilok"))
    for index in range(5):
        (photos / "cat" / f"bad{index}.jpg").write_bytes(b"no image")
    assert resolve(load_settings(None, (f"data.path={photos}",)), Workspace(tmp_path)).data.image_size == 40


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        resolve(load_settings(None, (f"data.path={tmp_path}",)), Workspace(tmp_path))


def test_an_input_smaller_than_the_networks_stride_is_refused_before_anything_runs(tmp_path):
    photos = _photos(tmp_path / "photos", [20])
    settings = load_settings(None, (f"data.path={photos}", "data.image_size=8", "model.architecture=pooling"))
    with pytest.raises(UserError, match=r"data\.image_size=8 .* stride 16 .*pooling"):
        resolve(settings, Workspace(tmp_path))
