import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_barlow import losses
from keras_barlow.losses.barlow_twins_loss import FORMS
from tests import oracles, shared

SHAPES = [(12, 5), (5, 12), (8, 8), (3, 7)]


def embeddings(rows, features, dtype="float32"):
    rng = np.random.default_rng(rows * 100 + features)
    shared = rng.normal(size=(rows, features))
    scale = rng.uniform(0.1, 10, features)
    return [((shared + rng.normal(size=shared.shape)) * scale + 3).astype(dtype) for _ in range(2)]


def test_the_gradient_of_the_oracle_matches_finite_differences():
    z_a, z_b = embeddings(6, 4, "float64")
    gradients = oracles.barlow_twins_gradient(z_a, z_b, 0.5)
    for index, gradient in enumerate(gradients):
        direction = np.random.default_rng(index).normal(size=z_a.shape)
        values = []
        for sign in (1, -1):
            moved = [z_a, z_b]
            moved[index] = moved[index] + sign * 1e-6 * direction
            values.append(oracles.barlow_twins_loss(*moved, 0.5)[0])
        np.testing.assert_allclose((values[0] - values[1]) / 2e-6, (gradient * direction).sum(), rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("float64", 1e-12)])
def test_value_and_gradient_match_numpy(form, shape, dtype, tolerance):
    z_a, z_b = embeddings(*shape, dtype)
    terms, *gradients = losses.BarlowTwinsLoss(0.3, form=form).value_and_gradient(z_a, z_b)
    np.testing.assert_allclose(
        list(terms.values()), oracles.barlow_twins_loss(z_a, z_b, 0.3), rtol=tolerance, atol=tolerance
    )
    for gradient, expected in zip(gradients, oracles.barlow_twins_gradient(z_a, z_b, 0.3), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_can_be_differentiated_by_a_tape(form):
    z_a, z_b = (tf.constant(z) for z in embeddings(6, 9))
    loss = losses.BarlowTwinsLoss(0.01, form=form)
    with tf.GradientTape() as tape:
        tape.watch([z_a, z_b])
        value = 3.0 * loss(z_a, z_b)
    for gradient, expected in zip(
        tape.gradient(value, [z_a, z_b]), oracles.barlow_twins_gradient(z_a, z_b, 0.01), strict=True
    ):
        np.testing.assert_allclose(gradient, 3 * expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_unknown_batch_size_and_xla_give_the_same_numbers(shape, jit_compile):
    z_a, z_b = embeddings(*shape)
    loss = losses.BarlowTwinsLoss(0.3)
    unknown = tf.TensorSpec((None, shape[1]))
    traced = tf.function(loss.value_and_gradient, input_signature=[unknown, unknown], jit_compile=jit_compile)
    for got, expected in zip(
        tf.nest.flatten(traced(z_a, z_b)), tf.nest.flatten(loss.value_and_gradient(z_a, z_b)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)


def test_auto_does_not_build_the_feature_matrix_where_the_batch_form_is_cheaper():
    loss = losses.BarlowTwinsLoss()
    spec = tf.TensorSpec((4, 64))
    graph = tf.function(loss.value_and_gradient, input_signature=[spec, spec]).get_concrete_function().graph
    shapes = {tuple(output.shape) for node in graph.get_operations() for output in node.outputs if output.shape.rank}
    assert (64, 64) not in shapes
    assert (4, 4) in shapes


@pytest.mark.parametrize(
    "rows, arguments",
    shared.few(
        [(rows, arguments) for rows in (8, 5) for arguments in ({}, {"normalization": "none"}, {"temperature": 0.2})],
        *[(5, {}), (8, {"normalization": "none"}), (5, {"temperature": 0.2})],
    ),
)
def test_the_cheap_forms_match_the_generic_gradient(strategy, rows, arguments):
    """`Loss.value_and_gradient` gathers all rows and differentiates `terms`; 5 rows leave one replica empty."""
    loss = losses.BarlowTwinsLoss(0.3, **arguments)
    batch = tf.data.Dataset.from_tensors(tuple(embeddings(rows, 6))).unbatch().batch(rows)
    batch = next(iter(strategy.experimental_distribute_dataset(batch)))

    @tf.function
    def both():
        return [strategy.run(call, args=batch) for call in (loss.value_and_gradient, generic)]

    def generic(*z):
        return losses.Loss.value_and_gradient(loss, *z)

    (terms, *own), (generic_terms, *expected) = tf.nest.map_structure(strategy.experimental_local_results, both())
    for name in loss.log_names:
        np.testing.assert_allclose(terms[name], generic_terms[name], rtol=2e-5, atol=1e-6)
    for gradient, other in zip(own, expected, strict=True):
        other = np.concatenate(other)
        np.testing.assert_allclose(np.concatenate(gradient), other, rtol=2e-5, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize(
    "rows, form",
    shared.few(
        [(rows, form) for rows in (8, 10, 5) for form in FORMS],
        *[(8, "auto"), (10, "feature"), (10, "batch"), (5, "feature"), (5, "batch")],
    ),
)
def test_replicas_get_the_value_of_the_global_batch_and_the_gradient_of_their_rows(strategy, rows, form):
    """10 rows on 4 replicas are 3, 3, 3 and 1; 5 rows leave one replica empty."""
    z_a, z_b = embeddings(rows, 6)
    loss = losses.BarlowTwinsLoss(0.3, form=form)
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors((z_a, z_b)).unbatch().batch(rows))

    @tf.function
    def step(batch):
        return strategy.run(loss.value_and_gradient, args=batch)

    terms, *gradients = tf.nest.map_structure(strategy.experimental_local_results, step(next(iter(dataset))))
    for term, expected in zip(terms.values(), oracles.barlow_twins_loss(z_a, z_b, 0.3), strict=True):
        np.testing.assert_allclose(term, [expected] * 4, rtol=2e-5)
    for gradient, expected in zip(gradients, oracles.barlow_twins_gradient(z_a, z_b, 0.3), strict=True):
        np.testing.assert_allclose(np.concatenate(gradient), expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("rows, features, reduced", [(64, 6, True), (8, 24, False)])
def test_replicas_sum_the_matrix_or_gather_embeddings_by_cost(strategy, rows, features, reduced):
    z_a, z_b = embeddings(rows, features)
    loss = losses.BarlowTwinsLoss(0.3)
    data = tf.data.Dataset.from_tensors((z_a, z_b)).unbatch().batch(rows, drop_remainder=True)
    batch = next(iter(strategy.experimental_distribute_dataset(data)))

    @tf.function
    def step():
        return strategy.run(loss.value_and_gradient, args=batch, kwargs={"total_rows": rows})

    gathers = [op for op in step.get_concrete_function().graph.get_operations() if "Gather" in op.type]
    gathered = [op for op in gathers if op.type.startswith("Collective")]
    assert (len(gathered) == 0) is reduced
    terms, *gradients = tf.nest.map_structure(strategy.experimental_local_results, step())
    np.testing.assert_allclose(terms["loss"], [oracles.barlow_twins_loss(z_a, z_b, 0.3)[0]] * 4, rtol=2e-5)
    for gradient, expected in zip(gradients, oracles.barlow_twins_gradient(z_a, z_b, 0.3), strict=True):
        np.testing.assert_allclose(np.concatenate(gradient), expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


def test_half_precision_is_computed_in_float32():
    z_a, z_b = (tf.cast(z, "bfloat16") for z in embeddings(8, 4))
    terms, gradient_a, _ = losses.BarlowTwinsLoss().value_and_gradient(z_a, z_b)
    assert terms["loss"].dtype == gradient_a.dtype == tf.float32
    exact = losses.BarlowTwinsLoss()(tf.cast(z_a, "float32"), tf.cast(z_b, "float32"))
    np.testing.assert_allclose(terms["loss"], exact, rtol=1e-6)


def test_a_constant_feature_costs_one_and_has_a_finite_gradient():
    z = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    z[:, 1] = 2.0
    terms, gradient, _ = losses.BarlowTwinsLoss().value_and_gradient(z, z)
    np.testing.assert_allclose(terms["invariance"], 1.0, rtol=1e-4)
    assert np.isfinite(gradient).all()


def test_cross_correlation_matches_numpy():
    z_a, z_b = embeddings(50, 4)
    expected = np.corrcoef(z_a.T, z_b.T)[:4, 4:]
    np.testing.assert_allclose(losses.cross_correlation(z_a, z_b), expected, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"form": "fast"}, "`form` must be one of"),
        ({"matmul_dtype": "int8"}, "`matmul_dtype` must be one of"),
        ({"redundancy_weight": -1}, "`redundancy_weight` must not be negative"),
        ({"epsilon": 0}, "`epsilon` must be positive"),
        ({"invariance_weight": -1}, "`invariance_weight` must not be negative"),
        ({"normalization": "rows"}, "`normalization` must be one of"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"temperature": 0.1, "off_diagonal_target": -1.0}, "no target off the diagonal.*off_diagonal_target=-1"),
        ({"temperature": 0.1, "form": "batch"}, "The batch form needs normalization=.*temperature=0.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        losses.BarlowTwinsLoss(**arguments)


@pytest.mark.parametrize("call", ["__call__", "value_and_gradient"])
@pytest.mark.parametrize(
    "shape_a, shape_b, message",
    [((1, 4), (1, 4), "at least 2 images"), ((3, 4), (4, 4), "one shape"), ((3,), (3,), "one shape")],
)
def test_bad_embeddings(call, shape_a, shape_b, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses.BarlowTwinsLoss(), call)(np.zeros(shape_a, "float32"), np.zeros(shape_b, "float32"))


@pytest.mark.parametrize("form", ["feature", "batch"])
def test_matmul_dtype_bfloat16_rounds_the_products(form):
    z_a, z_b = embeddings(64, 40)
    exact, rounded = (losses.BarlowTwinsLoss(0.1, form=form, matmul_dtype=dtype) for dtype in (None, "bfloat16"))
    (terms, *gradients), (near, *others) = (loss.value_and_gradient(z_a, z_b) for loss in (exact, rounded))
    np.testing.assert_allclose(near["loss"], terms["loss"], rtol=0.01)
    assert float(near["loss"]) != float(terms["loss"])
    for got, expected in zip(others, gradients, strict=True):
        assert got.dtype == tf.float32
        assert np.linalg.norm(got - expected) < 0.01 * np.linalg.norm(expected)


def test_config_round_trip():
    loss = losses.BarlowTwinsLoss(0.1, 1e-3, "batch", "bfloat16")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert list(loss.get_config().values()) == [0.1, 1e-3, "batch", "bfloat16", 1.0, "batch", None, 0.0]


def ablated_by_autodiff(
    z_a,
    z_b,
    redundancy_weight,
    invariance_weight=1.0,
    normalization="batch",
    temperature=None,
    off_diagonal_target=0.0,
    form="auto",
):
    """Value and gradient of an ablation of the loss, from its formula by autodiff in float64."""
    z_a, z_b = tf.constant(z_a, "float64"), tf.constant(z_b, "float64")
    with tf.GradientTape() as tape:
        tape.watch([z_a, z_b])
        a, b = z_a, z_b
        if normalization != "none":
            axis = {"batch": 0, "feature": 1}[normalization]
            moments = [tf.nn.moments(z, axis, keepdims=True) for z in (z_a, z_b)]
            a, b = ((z - mean) / tf.sqrt(var + 1e-5) for z, (mean, var) in zip((z_a, z_b), moments, strict=True))
        c = tf.matmul(a, b, transpose_a=True) / len(a)
        diagonal = tf.linalg.diag_part(c)
        others = tf.boolean_mask(c, ~tf.eye(len(c), dtype=tf.bool))
        if temperature is None:
            invariance = tf.reduce_sum((1 - diagonal) ** 2)
            redundancy = tf.reduce_sum((others - off_diagonal_target) ** 2)
        else:
            invariance = -tf.math.log(tf.reduce_sum(tf.exp(diagonal / temperature)))
            redundancy = tf.math.log(tf.reduce_sum(tf.exp(tf.maximum(others, 0) / temperature)))
        loss = invariance_weight * invariance + redundancy_weight * redundancy
    return (loss, invariance, redundancy), tape.gradient(loss, [z_a, z_b])


ABLATIONS = [
    {"redundancy_weight": 0.0},
    {"redundancy_weight": 0.3, "invariance_weight": 0.0},
    {"redundancy_weight": 0.3, "normalization": "feature"},
    {"redundancy_weight": 0.3, "normalization": "none"},
    {"redundancy_weight": 0.3, "temperature": 0.2},
    {"redundancy_weight": 0.3, "temperature": 0.2, "normalization": "feature", "invariance_weight": 2.0},
    {"redundancy_weight": 0.3, "off_diagonal_target": -1.0, "form": "feature"},
    {"redundancy_weight": 0.3, "off_diagonal_target": -1.0, "form": "batch"},
    {"redundancy_weight": 0.3, "off_diagonal_target": 0.5, "normalization": "none"},
]


@pytest.mark.parametrize("arguments", shared.few(ABLATIONS, *ABLATIONS[1:4], *ABLATIONS[5:8]))
def test_ablations_match_autodiff_on_one_and_on_four_replicas(strategy, arguments):
    z_a, z_b = embeddings(10, 6)
    expected_terms, expected = ablated_by_autodiff(z_a, z_b, **arguments)
    loss = losses.BarlowTwinsLoss(**arguments)
    assert losses.BarlowTwinsLoss.from_config(loss.get_config()).get_config() == loss.get_config()
    terms, *gradients = loss.value_and_gradient(z_a, z_b)
    data = tf.data.Dataset.from_tensors((z_a, z_b)).unbatch().batch(10)
    batch = next(iter(strategy.experimental_distribute_dataset(data)))
    # The replicas get 3, 3, 3 and 1 rows.
    parts = tf.function(lambda: strategy.run(loss.value_and_gradient, args=batch))()
    replicated_terms, *replicated = tf.nest.map_structure(strategy.experimental_local_results, parts)
    for name, term in zip(loss.log_names, expected_terms, strict=True):
        np.testing.assert_allclose(terms[name], term, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(replicated_terms[name], [term] * 4, rtol=2e-5, atol=1e-6)
    for index, gradient in enumerate(expected):
        scale = 2e-5 * np.abs(gradient).max()
        np.testing.assert_allclose(gradients[index], gradient, rtol=2e-5, atol=scale)
        np.testing.assert_allclose(np.concatenate(replicated[index]), gradient, rtol=2e-5, atol=scale)
