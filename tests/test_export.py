import functools
import importlib.util
import os
import pathlib
import subprocess
import sys

import huggingface_hub
import kagglehub
import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keras_barlow as kb
from keras_barlow import evaluation, export
from tests import shared

ABSENT = """
import sys, warnings

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_barlow":
            raise ImportError("keras_barlow is not here")

sys.meta_path.insert(0, Absent())
warnings.filterwarnings("ignore")
import numpy as np

path, images, output = sys.argv[1:]
images = np.load(images)
"""
# Each program computes `features` in a process that cannot import this package.
LOADERS = {
    "hub.load": """
import tensorflow_hub as hub
import tensorflow as tf
loaded = hub.load(path)
moving = [variable.numpy() for variable in loaded.variables]
features = loaded(tf.constant(images)).numpy()
assert all((a == b.numpy()).all() for a, b in zip(moving, loaded.variables))
with tf.GradientTape() as tape:
    total = tf.reduce_sum(loaded(images, training=True))
gradients = tape.gradient(total, loaded.trainable_variables)
assert gradients and all(gradient is not None for gradient in gradients)
assert any((a != b.numpy()).any() for a, b in zip(moving, loaded.variables))
assert len(loaded.regularization_losses) == 1 and float(loaded.regularization_losses[0]()) > 0
""",
    "hub.KerasLayer": """
import functools
import importlib.util
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tf_keras
import tensorflow_hub as hub
layer = hub.KerasLayer(path, trainable=True)
model = tf_keras.Sequential([tf_keras.Input(images.shape[1:]), layer])
features = model.predict(images, verbose=0)
assert layer.trainable_weights and len(layer.losses) == 1
""",
    "tf.saved_model.load": """
import tensorflow as tf
loaded = tf.saved_model.load(path)
features = loaded(images).numpy()
for name in ("serving_default", "image_feature_vector"):
    again = loaded.signatures[name](images=tf.constant(images))["default"].numpy()
    assert (again == features).all()
""",
    "keras.layers.TFSMLayer": """
import keras
layer = keras.layers.TFSMLayer(path, call_endpoint="serving_default")
inputs = keras.Input(images.shape[1:])
features = keras.Model(inputs, layer(inputs)).predict(images, verbose=0)["default"]
""",
    "onnxruntime": """
import onnxruntime
session = onnxruntime.InferenceSession(path + ".onnx")
features = session.run(None, {"images": images})[0]
assert "tensorflow" not in sys.modules
""",
    "LiteRT": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path + ".tflite")
place = interpreter.get_input_details()[0]["index"]
interpreter.resize_tensor_input(place, images.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(place, images)
interpreter.invoke()
features = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
assert "tensorflow" not in sys.modules
""",
}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype="uint8")


# In one process each: most of the time goes into importing TensorFlow.
PROCESSES = {
    "TensorFlow": ["tf.saved_model.load", "keras.layers.TFSMLayer", "hub.load"],
    "no TensorFlow": ["onnxruntime", "LiteRT"],
    "tf_keras": ["hub.KerasLayer"],
}


def trained(policy="float32"):
    keras.config.set_dtype_policy(policy)
    return _trained(policy)


@functools.cache
def _trained(policy):
    encoder = kb.encoders.resnet((1, 1), input_shape=(16, 16, 3), stem="small", width=4)
    encoder.trainable_weights[0].regularizer = keras.regularizers.L2(0.1)
    model = kb.BarlowTwins(encoder, kb.Projector((8,)))
    model.compile("sgd")
    model.fit((IMAGES, IMAGES[::-1].copy()), batch_size=5, verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of every format, with its images and the features of `predict`."""
    folder = tmp_path_factory.mktemp("export")
    model = trained()
    export.save_encoder(model, folder / "encoder")
    export.save_encoder(model, folder / "encoder.onnx", format="onnx")
    export.save_encoder(model, folder / "encoder.tflite", format="litert")
    np.save(folder / "images.npy", (IMAGES / 255).astype("float32"))
    return folder, model.predict(IMAGES, verbose=0)


@pytest.mark.parametrize("process", shared.few(PROCESSES, "TensorFlow", "no TensorFlow"))
def test_every_loader_matches_predict_without_this_package(process, exported, tmp_path):
    assert {name for names in PROCESSES.values() for name in names} == set(LOADERS)
    loaders = PROCESSES[process]
    if importlib.util.find_spec("tensorflow_hub") is None:
        loaders = [name for name in loaders if not name.startswith("hub.")]
    if not loaders:
        pytest.skip("tensorflow-hub needs `tensorflow`: not beside tensorflow-cpu")
    folder, expected = exported
    program = ABSENT + "".join(f"{LOADERS[name]}np.save(output + '{name}', features)\n" for name in loaders)
    arguments = [str(folder / "encoder"), str(folder / "images.npy"), str(tmp_path / "features ")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tolerance = 1e-3 if process == "no TensorFlow" else 1e-4
    for name in loaders:
        features = np.load(tmp_path / f"features {name}.npy")
        assert features.dtype == np.float32
        assert np.abs(features - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("input_dtype", shared.few(["float32", "uint8"], "uint8"))
def test_the_c_runtime_of_tensorflow_serves_it(input_dtype, tmp_path):
    model = trained()
    path = export.save_encoder(model, tmp_path / "encoder", input_dtype=input_dtype)
    # Operation names from the signature, as a server reads them.
    signature = tf.compat.v1.saved_model.load
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = signature(session, ["serve"], path).signature_def["serving_default"]
    taken = signature.inputs["images"].name.split(":")[0]
    given, index = signature.outputs["default"].name.split(":")
    np.save(tmp_path / "images.npy", IMAGES if input_dtype == "uint8" else (IMAGES / 255).astype("float32"))
    script = pathlib.Path(__file__).with_name("c_runtime.py")
    arguments = [path, taken, given, index, tmp_path / "images.npy", tmp_path / "features.npy"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = model.predict(IMAGES, verbose=0)
    assert np.abs(np.load(tmp_path / "features.npy") - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("format", shared.few(export.FORMATS, "saved_model"))
def test_mixed_precision_is_exported(format, tmp_path):
    model = trained("mixed_bfloat16")
    suffix = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite"}[format]
    path = export.save_encoder(model, tmp_path / f"encoder{suffix}", format=format)
    images = (IMAGES / 255).astype("float32")
    if format == "saved_model":
        features = tf.saved_model.load(path)(images)
    elif format == "onnx":
        features = onnxruntime.InferenceSession(path).run(None, {"images": images})[0]
    else:
        interpreter = Interpreter(path)
        features = interpreter.get_signature_runner()(images=images)["output_0"]
    np.testing.assert_allclose(features, model.predict(IMAGES, verbose=0), rtol=0.02, atol=0.02)


def test_a_loaded_export_can_be_fine_tuned(tmp_path):
    """Twenty steps reduce a supervised loss and update the moving statistics."""
    loaded = tf.saved_model.load(export.save_encoder(trained(), tmp_path))
    rng = np.random.default_rng(0)
    labels = np.arange(32) % 2
    images = (0.3 * rng.uniform(size=(32, 16, 16, 3)) + 0.5 * labels[:, None, None, None]).astype("float32")
    head = tf.Variable(tf.zeros((8, 2)))
    trainable = [*loaded.trainable_variables, head]
    fixed = [variable for variable in loaded.variables if not variable.trainable]
    before = [variable.numpy() for variable in fixed]
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    losses = []
    for _ in range(20):
        with tf.GradientTape() as tape:
            scores = tf.matmul(loaded(images, training=True), head)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
            total = loss + sum(penalty() for penalty in loaded.regularization_losses)
        optimizer.apply(tape.gradient(total, trainable), trainable)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]
    assert len(before) == 12 and all((old != new.numpy()).any() for old, new in zip(before, fixed, strict=True))


def test_feature_maps_and_classifier_and_their_signatures(tmp_path):
    model = trained()
    features = model.predict(IMAGES, verbose=0)
    head = export.linear_head(features, [0, 1, 2, 0, 1], class_names=("cat", "dog", "cow"))
    images = (IMAGES / 255).astype("float32")
    loaded = tf.saved_model.load(export.save_encoder(model, tmp_path, feature_maps=True, classifier=head))
    staged = keras.Model(model.encoder.input, kb.encoders.stage_outputs(model.encoder))
    maps = loaded.signatures["image_feature_maps"](images=tf.constant(images))
    assert sorted(maps) == ["default", "feature1", "feature2", "feature3"]
    for number, expected in enumerate(staged.predict(IMAGES, verbose=0), start=1):
        np.testing.assert_allclose(maps[f"feature{number}"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps["default"], features, rtol=1e-4, atol=1e-5)
    scores = loaded.signatures["image_classification"](images=tf.constant(images))["default"]
    expected = evaluation.linear_scores(features, [0, 1, 2, 0, 1], features)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(scores, loaded.classify(images)["default"])
    assert [name.decode() for name in loaded.class_names.numpy()] == ["cat", "dog", "cow"]
    assert "Classes: cat, dog, cow." in (tmp_path / "README.md").read_text()


def test_heads_match_the_classifiers_of_evaluation():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 7)).astype("float32"), rng.integers(0, 4, 60)
    queries = rng.normal(size=(9, 7)).astype("float32")
    votes = evaluation.knn_scores(features, labels, queries, k=5, temperature=0.2)
    got = export.knn_head(features, labels, k=5, temperature=0.2)(tf.constant(queries))
    np.testing.assert_allclose(got, votes / votes.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    for several in (labels, labels % 2, 2 * (labels % 2)):
        got = export.linear_head(features, several)(tf.constant(queries))
        np.testing.assert_allclose(got, evaluation.linear_scores(features, several, queries), rtol=1e-3, atol=1e-5)
    for make in (export.knn_head, export.linear_head):
        with pytest.raises(ValueError, match="59 labels for 60 rows"):
            make(features, labels[1:])
        with pytest.raises(ValueError, match="2 names for 4 classes"):
            make(features, labels, class_names=("a", "b"))
    with pytest.raises(ValueError, match=r"between 1 and .* 60. Received: k=61"):
        export.knn_head(features, labels, k=61)


@pytest.mark.full
def test_images_that_look_like_0_to_255_are_reported_once(tmp_path):
    model = trained()
    export.save_encoder(model, tmp_path / "checked")
    export.save_encoder(model, tmp_path / "unchecked", check_range=False)
    program = """
import sys, numpy as np, tensorflow as tf
for path in sys.argv[1:]:
    loaded = tf.saved_model.load(path)
    loaded(np.ones((2, 16, 16, 3), "float32"))
    for _ in range(3):
        loaded(np.full((2, 16, 16, 3), 200, "float32"))
tf.function(loaded, jit_compile=True)(np.full((2, 16, 16, 3), 1, "float32"))
"""
    paths = [str(tmp_path / name) for name in ("checked", "unchecked")]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("expects images in [0, 1]. Received: values up to 200") == 1


def test_load_encoder_reads_every_format(tmp_path):
    model = trained()
    expected = model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "model.keras")
    model.encoder.save(tmp_path / "encoder.keras")
    for input_dtype in ("float32", "uint8"):
        export.save_encoder(model, tmp_path / input_dtype, input_dtype=input_dtype)
    for name in (".", "model.keras", "encoder.keras", "float32", "uint8"):
        np.testing.assert_allclose(kb.load_encoder(tmp_path / name).predict(IMAGES, verbose=0), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
def test_an_incomplete_export_is_rejected(name, tmp_path):
    path = export.save_encoder(trained(), tmp_path)
    os.remove(os.path.join(path, "variables", name))
    with pytest.raises(ValueError, match=f"must be complete. Received: .* without variables/{name}"):
        kb.load_encoder(path)
    with pytest.raises(ValueError, match="which is none of them"):
        kb.load_encoder(tmp_path / "nothing")


def test_publishing_writes_the_folder_that_is_uploaded(tmp_path, monkeypatch):
    model, card = trained(), {"license": "apache-2.0", "data": "5 images", "metrics": {"k-NN top-1": 0.5}}
    uploaded = []

    def contents(folder):
        files = (file for file in pathlib.Path(folder).rglob("*") if file.is_file())
        return {str(file.relative_to(folder)) for file in files}

    monkeypatch.setattr(
        kagglehub, "model_upload", lambda handle, folder, **kw: uploaded.append((handle, contents(folder), kw))
    )
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda repo_id, **kw: uploaded.append((repo_id, kw)))
    monkeypatch.setattr(
        huggingface_hub, "upload_folder", lambda repo_id, folder_path, **kw: uploaded.append(contents(folder_path))
    )
    handle = "me/barlow/tensorFlow2/digits"
    dry = export.to_kaggle(model, handle, tmp_path / "kaggle", dry_run=True, card=card)
    assert not uploaded and "saved_model.pb" in contents(dry) and "README.md" in contents(dry)
    text = (tmp_path / "kaggle" / "README.md").read_text()
    assert "license: apache-2.0" in text and "5 images" in text and "| k-NN top-1 | 0.5 |" in text
    export.to_kaggle(model, handle, card=card)
    assert uploaded == [(handle, contents(dry), {"license_name": "apache-2.0", "version_notes": ""})]
    uploaded.clear()
    assert contents(export.to_huggingface(model, "me/barlow", tmp_path / "hf", dry_run=True)) == contents(dry)
    assert not uploaded
    export.to_huggingface(model, "me/barlow", private=True)
    assert uploaded == [("me/barlow", {"private": True, "exist_ok": True}), contents(dry)]
    with pytest.raises(ValueError, match="'owner/model/tensorFlow2/variation'"):
        export.to_kaggle(model, "barlow", dry_run=True)
    with pytest.raises(ValueError, match="'owner/name'"):
        export.to_huggingface(model, "barlow", dry_run=True)
    with pytest.raises(ValueError, match="must be empty"):
        export.to_kaggle(model, handle, dry, dry_run=True)


def test_the_code_of_the_card_runs(tmp_path):
    """The code in the model card runs unchanged."""
    for input_dtype in ("float32", "uint8"):
        path = export.save_encoder(trained(), tmp_path / input_dtype, input_dtype=input_dtype)
        keras.utils.save_img(tmp_path / "photo.jpg", IMAGES[0])
        code = (pathlib.Path(path) / "README.md").read_text().split("```python\n")[1].split("```")[0]
        code = code.replace('"FOLDER"', repr(path)).replace('"photo.jpg"', repr(str(tmp_path / "photo.jpg")))
        names = {}
        exec(code, names)
        assert names["features"].shape == (1, 8)


def test_invalid_formats_are_rejected(tmp_path):
    model = trained()
    for arguments, message in (
        ({"format": "torch"}, "must be one of"),
        ({"input_dtype": "float16"}, "'float32' or 'uint8'"),
        ({"card": {"author": "me"}}, "recipe, data, metrics and license. Received: 'author'"),
        ({"format": "onnx"}, r"end with \.onnx"),
        ({"format": "litert", "feature_maps": True}, "are for a SavedModel"),
    ):
        with pytest.raises(ValueError, match=message):
            export.save_encoder(model, tmp_path / "encoder", **arguments)


def test_an_unbuilt_encoder_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"built keras.Model.*Call the encoder"):
        kb.export.save_encoder(keras.Sequential([keras.layers.Flatten()]), tmp_path)


def test_a_loaded_export_accepts_any_batch_size(tmp_path):
    encoder = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)
    loaded = tf.saved_model.load(kb.export.save_encoder(encoder, tmp_path))
    for rows in (1, 7):
        assert loaded(tf.zeros((rows, 8, 8, 3))).shape == (rows, 4)
