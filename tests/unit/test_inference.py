import numpy as np
import tensorflow as tf
import tf_keras as keras

from trainer_module.inference import Inference, Predictor, fastest, measure_in_turns

IMAGES = tf.constant(np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32))


def _model(seed):
    keras.utils.set_random_seed(seed)
    image = keras.Input([16, 16, 3])
    x = keras.layers.Conv2D(8, 3)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(stddev=9))(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Softmax()(x))


def test_every_way_gives_the_same_answers():
    model = _model(seed=1)
    plain = Predictor(model, Inference()).predict(IMAGES)
    np.testing.assert_allclose(plain.sum(axis=1), 1, rtol=1e-5)
    for how in (Inference(folded=True), Inference(jit=True), Inference(jit=True, folded=True)):
        np.testing.assert_allclose(Predictor(model, how).predict(IMAGES), plain, atol=1e-3)


def test_the_fastest_of_those_whose_answers_hold_is_picked():
    model = _model(seed=1)
    plain, folded = Predictor(model, Inference()), Predictor(model, Inference(folded=True))
    other = Predictor(_model(seed=2), Inference(folded=True))
    measure_in_turns([plain, folded, other], IMAGES)
    assert fastest([plain, folded, other], IMAGES) is min([plain, folded], key=lambda each: each.seconds_per_step)
    assert fastest([other, plain, folded], IMAGES) is other
    assert all(0 < each.seconds_per_step < 1 for each in (plain, folded, other))


def test_answers_that_are_no_numbers_do_not_hold():
    model, broken = _model(seed=1), _model(seed=1)
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    predictors = [Predictor(model, Inference()), Predictor(broken, Inference())]
    measure_in_turns(predictors, IMAGES)
    assert fastest(predictors, IMAGES) is predictors[0]
