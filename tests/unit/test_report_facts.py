"""What the report collects from artifacts: photos, statistics, what was made from what."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tfx  # noqa: F401  # isort: skip (stands in for a module of tfx-bsl that TFDV imports and that is gone)
import tensorflow_data_validation as tfdv
from PIL import Image

from pipeline.metadata import ComponentRun, Flow, OutputArtifact
from pipeline.report.lineage import draw_lineage
from pipeline.report.photos import find_photos, sample_photos
from pipeline.report.statistics import drift, numeric_features
from tests.image_files import jpeg, picture
from trainer_module import features
from trainer_module.evaluation import digest


def _write_examples(root, photos):
    """Writes (name, class, encoded) as ingest does."""
    folder = root / "Split-test"
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data.gz"), tf.io.TFRecordOptions("GZIP")) as writer:
        for name, class_name, encoded in photos:
            example = tf.train.Example()
            for key, value in (
                (features.IMAGE_FILENAME, name.encode()),
                (features.CLASS_TEXT, class_name.encode()),
                (features.IMAGE_ENCODED, encoded),
            ):
                example.features.feature[key].bytes_list.value.append(value)
            writer.write(example.SerializeToString())
    return str(root)


def _picture_of(photo):
    content = base64.b64decode(photo.source.split(",")[1])
    return Image.open(io.BytesIO(content))


def test_samples_are_few_small_and_of_every_class(tmp_path):
    large = jpeg(picture(400, 300))
    examples = _write_examples(tmp_path, [(f"{i}.jpg", "ab"[i % 2], large) for i in range(40)])
    photos = sample_photos(examples, "test", ["a", "b"])
    assert [photo.class_name for photo in photos] == ["a"] * 6 + ["b"] * 6
    assert max(_picture_of(photos[0]).size) == 96
    assert len(photos[0].source) < 10_000


def test_samples_of_hundreds_of_classes_stay_bounded(tmp_path):
    small = jpeg(picture(16, 16))
    names = [f"{index:03}" for index in range(300)]
    examples = _write_examples(tmp_path, [(f"{name}.jpg", name, small) for name in names])
    assert [photo.class_name for photo in sample_photos(examples, "test", names)] == names[:60]


def test_photos_are_found_by_the_digest_of_what_is_stored(tmp_path):
    encoded = [jpeg(picture(16, 16, seed=seed)) for seed in range(5)]
    examples = _write_examples(tmp_path, [(f"{i}.jpg", "a", content) for i, content in enumerate(encoded)])
    found = find_photos(examples, "test", {digest(encoded[3]), digest(b"unknown")})
    assert {key: photo.name for key, photo in found.items()} == {digest(encoded[3]): "3.jpg"}
    # So small that it is not compressed again.
    assert _picture_of(found[digest(encoded[3])]).format == "PNG"


@pytest.fixture
def statistics(tmp_path):
    """Writes statistics as StatisticsGen does, by TFDV, and their schema."""

    def write(name, brightness, classes):
        frame = pd.DataFrame({features.IMAGE_BRIGHTNESS: brightness, features.CLASS_TEXT: classes})
        result = tfdv.generate_statistics_from_dataframe(frame)
        for split in features.SPLITS:
            folder = tmp_path / name / f"Split-{split}"
            folder.mkdir(parents=True)
            (folder / "FeatureStats.pb").write_bytes(result.SerializeToString())
        schema = tmp_path / name / "schema.pbtxt"
        tfdv.write_schema_text(tfdv.infer_schema(result), str(schema))
        return str(tmp_path / name)

    return write


def test_statistics_are_tfdvs(statistics):
    values = np.linspace(0.2, 0.6, 100)
    figures = numeric_features(statistics("now", values, ["a"] * 100))
    assert [(each.split, each.name) for each in figures] == [(split, "brightness") for split in features.SPLITS]
    assert figures[0].photos == 100
    assert figures[0].mean == pytest.approx(values.mean())
    assert figures[0].deviation == pytest.approx(values.std())
    assert sum(photos for _, _, photos in figures[0].histogram) == pytest.approx(100, abs=0.5)


def test_drift_is_zero_for_the_same_photos_and_large_for_others(statistics):
    before = statistics("before", np.linspace(0.2, 0.4, 100), ["a", "b"] * 50)
    now = statistics("now", np.linspace(0.6, 0.9, 100), ["a"] * 10 + ["b"] * 90)
    same = {(each.split, each.name): each.divergence for each in drift(before, before, before)}
    assert set(same) == {(split, name) for split in features.SPLITS for name in ("brightness", "class")}
    assert max(same.values()) == pytest.approx(0, abs=1e-6)
    moved = {each.name: each.divergence for each in drift(now, before, now) if each.split == "train"}
    assert moved["brightness"] > 0.9
    assert 0.05 < moved["class"] < 0.5


def _flow(number, name, inputs, outputs):
    artifacts = [tuple(OutputArtifact(id_, f"/{id_}", {}, kind) for id_, kind in group) for group in (inputs, outputs)]
    return Flow(ComponentRun(name, "done", 0.0, 1.0, number), *artifacts)


def test_lineage_puts_everything_below_what_it_was_made_from():
    graph = draw_lineage(
        [
            _flow(1, "ImageExampleGen", [], [(1, "Examples"), (2, "components.IngestReport")]),
            _flow(2, "Trainer", [(1, "Examples")], [(3, "Model")]),
            _flow(3, "Evaluator", [(1, "Examples"), (3, "Model"), (9, "Model")], [(4, "ModelEvaluation")]),
        ]
    )
    layers = {node.key: node.layer for node in graph.nodes}
    assert all(layers[before] < layers[after] for before, after in graph.edges)
    labels = [node.label for node in graph.nodes]
    assert {"Trainer", "Model 3", "Model 9", "IngestReport 2"} <= set(labels)
    # A model of an earlier run.
    assert layers["artifact 9"] == 0
    places = [(node.layer, node.position) for node in graph.nodes]
    assert len(set(places)) == len(places)
