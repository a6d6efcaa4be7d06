"""Exported files: atomic, without private data, and without losing files of the user."""

import logging
import pathlib

import huggingface_hub
import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from keras import layers

import keras_barlow as kb
from keras_barlow import export
from keras_barlow.export import card, formats, saved_model
from tests import shared

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype="uint8")


@pytest.fixture
def encoder():
    return kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)


def contents(folder):
    """Returns the bytes of every file below a folder, including hidden files."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fails(*arguments, **options):
    raise OSError("No space left on device")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("where", ["card", "save", "write"])
def test_a_failed_export_changes_nothing(where, earlier, encoder, tmp_path, monkeypatch):
    if earlier:
        export.save_encoder(encoder, tmp_path / "encoder")
    before = contents(tmp_path)
    arguments = {"card": {"metrics": {"top1": object()}}} if where == "card" else {}
    if where == "save":
        # Fail after TensorFlow has written all its files.
        save = tf.saved_model.save
        monkeypatch.setattr(tf.saved_model, "save", lambda *a, **kw: (save(*a, **kw), fails()))
    elif where == "write":
        monkeypatch.setattr(pathlib.Path, "write_bytes", fails)
    with pytest.raises((ValueError, OSError), match=r"metrics\['top1'\]|No space left"):
        export.save_encoder(encoder, tmp_path / "encoder", **arguments)
    assert contents(tmp_path) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["encoder"] * earlier


@pytest.mark.parametrize("format, name", [("onnx", "encoder.onnx"), ("litert", "encoder.tflite")])
def test_a_failed_file_changes_nothing(format, name, encoder, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"earlier")
    monkeypatch.setattr(keras.Model, "export", lambda self, path, **kw: (pathlib.Path(path).write_bytes(b"x"), fails()))
    monkeypatch.setattr(formats, "_litert", fails)
    with pytest.raises(OSError, match="No space left"):
        export.save_encoder(encoder, tmp_path / name, format=format)
    assert contents(tmp_path) == {name: b"earlier"}


def test_an_earlier_export_is_replaced(encoder, tmp_path):
    other = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=8)
    for model in (encoder, other):
        path = export.save_encoder(model, tmp_path / "encoder", card={"data": model.name})
    assert kb.load_encoder(path).output_shape == (None, 8)
    assert [entry.name for entry in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.parametrize(
    "files, message",
    [
        ({"README.md": "my notes"}, "holds 'README.md'"),
        ({"notes.txt": "mine"}, "holds 'notes.txt'"),
        ({"saved_model.pb": "", "README.md": "my notes"}, "README.md is missing, changed"),
        ({"saved_model.pb": ""}, "README.md is missing"),
        ({"variables/mine": ""}, "holds 'variables'"),
    ],
)
def test_a_folder_with_other_files_is_rejected(files, message, encoder, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    for write in (export.save_encoder, lambda *a: export.to_kaggle(a[0], "o/m/tensorFlow2/v", a[1], dry_run=True)):
        with pytest.raises(ValueError, match=f"{message}.*Choose another path"):
            write(encoder, tmp_path)
    assert contents(tmp_path) == before


def test_a_modified_readme_is_kept(encoder, tmp_path):
    export.save_encoder(encoder, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("not stated", "photographs"))
    with pytest.raises(ValueError, match="is missing, changed"):
        export.save_encoder(encoder, tmp_path)
    assert "photographs" in readme.read_text()


PATHS = {
    "a file": ("file", {}, "must be a folder. Received: .*file', a file"),
    "below a file": ("file/encoder", {}, "`path` must be writable"),
    "nowhere": ("/proc/nowhere/encoder", {}, "`path` must be writable"),
    "remote": ("gs://bucket/encoder", {}, "must be local"),
    "no text": ("caf\udce9", {}, "must be valid UTF-8"),
    "a folder for a file": ("folder.onnx", {"format": "onnx"}, "must be a file"),
    "LiteRT below a file": ("file/encoder.tflite", {"format": "litert"}, "`path` must be writable"),
}


@pytest.mark.parametrize("name", PATHS)
def test_unwritable_paths_are_rejected(name, encoder, tmp_path, monkeypatch):
    path, arguments, message = PATHS[name]
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").write_text("mine")
    pathlib.Path("folder.onnx").mkdir()
    with pytest.raises(ValueError, match=message):
        export.save_encoder(encoder, path, **arguments)
    if not arguments:
        with pytest.raises(ValueError, match=message):
            export.to_huggingface(encoder, "me/encoder", path, dry_run=True)
    assert contents(tmp_path) == {"file": b"mine"}


def test_the_home_folder_is_expanded(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert export.save_encoder(encoder, "~/encoder") == str(tmp_path / "encoder")
    assert kb.load_encoder("~/encoder").output_shape == (None, 4)
    assert export.to_kaggle(encoder, "o/m/tensorFlow2/v", "~/kaggle", dry_run=True) == str(tmp_path / "kaggle")
    export.save_encoder(encoder, "~/encoder.tflite", format="litert")
    encoder.save("encoder.keras")
    assert kb.load_encoder(pathlib.Path("~/encoder.keras")).output_shape == (None, 4)
    assert not (tmp_path / "~").exists()
    with pytest.raises(ValueError, match="none of them"):
        kb.load_encoder("~/nothing")


def test_an_export_contains_nothing_of_this_machine(encoder, tmp_path):
    head = export.knn_head(np.eye(4, dtype="float32"), [0, 1, 2, 1], k=2)
    model = kb.BarlowTwins(encoder, kb.Projector((4,)), kb.views.barlow_twins(8, seed=0))
    model.compile("adam")
    model.fit(IMAGES, batch_size=4, verbose=0)
    export.save_encoder(model, tmp_path / "encoder", feature_maps=True, classifier=head, card={"data": "4 images"})
    export.save_encoder(model, tmp_path / "encoder.onnx", format="onnx")
    export.save_encoder(model, tmp_path / "encoder.tflite", format="litert")
    files = contents(tmp_path)
    assert {"encoder/saved_model.pb", "encoder/README.md", "encoder.onnx", "encoder.tflite"} <= set(files)
    folders = {pathlib.Path(module.__file__).parents[1] for module in (kb, keras, tf)}
    for name, content in files.items():
        assert "debug" not in name
        for private in (*folders, tmp_path, pathlib.Path.home(), pathlib.Path.cwd()):
            assert private == pathlib.Path("/") or str(private).encode() not in content, (name, private)
        assert b".py" not in content.replace(b".pyramid", b""), name


INJECTIONS = ["mit\nextra: true", "mit\r\nx: y", "mit\x85x", "mit\u2028x", "", " ", 3, ["mit"]]


@pytest.mark.parametrize("license", INJECTIONS, ids=repr)
def test_a_license_is_one_line(license, encoder, tmp_path):
    with pytest.raises(ValueError, match="`license` must be a license identifier on one line"):
        export.save_encoder(encoder, tmp_path / "encoder", card={"license": license})
    assert not list(tmp_path.iterdir())


def test_the_old_spelling_of_license_warns_and_works(encoder, tmp_path):
    with pytest.warns(DeprecationWarning, match="`licence` is now `license`"):
        path = export.save_encoder(encoder, tmp_path / "encoder", card={"licence": "mit"})
    assert "license: mit\n" in pathlib.Path(path, "README.md").read_text()
    with pytest.raises(ValueError, match="Received: 'licence'"):
        export.save_encoder(encoder, path, card={"licence": "mit", "license": "mit"})


@pytest.mark.parametrize(
    "license", ["apache-2.0", "CC BY-SA 4.0", "no", "mit # x", "a: b", '"q', "{x}", "caf\u00e9", "1.0"]
)
def test_the_header_holds_the_license(license, encoder):
    text = card.model_card(encoder, license=license, data="a\n---\nlicense: mit\n| b", recipe={"x\ny": "a\n# b"})
    _, header, body = text.split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["license"] == license
    assert set(fields) == {"license", "library_name", "pipeline_tag", "tags"}
    assert "| trained on | a --- license: mit \\| b |" in body and "- x y: a # b" in body


def test_the_card_names_the_method(encoder, tmp_path):
    class Mine(kb.BarlowTwins):
        pass

    path = pathlib.Path(export.save_encoder(Mine(encoder, kb.Projector((4,))), tmp_path / "encoder"), "README.md")
    assert "trained with Mine" in path.read_text() and "tags: [mine, self" in path.read_text()
    assert "https://arxiv.org" not in path.read_text()
    export.save_encoder(encoder, path.parent, card={"method": "MoCo v2"})
    assert "trained with MoCo v2" in path.read_text() and "tags: [moco-v2, self" in path.read_text()
    export.save_encoder(kb.BarlowTwins(encoder, kb.Projector((4,))), path.parent)
    assert "trained with Barlow Twins" in path.read_text() and "2103.03230" in path.read_text()


@pytest.mark.parametrize("method", ["", " ", "a\nb", 3])
def test_a_method_is_one_line(method, encoder):
    with pytest.raises(ValueError, match="`method` must be the name of a method"):
        card.model_card(encoder, method=method)


METRICS = {
    "integer": (12_345_678, "12345678"),
    "float": (0.123456, "0.1235"),
    "string": ("0.5 | 0.6\n", "0.5 \\| 0.6"),
    "boolean": (True, "True"),
    "none": (None, "none"),
    "NaN": (float("nan"), "nan"),
    "NumPy": (np.float32(0.5), "0.5"),
    "array": (np.array([0.25, 0.5]), "0.25, 0.5"),
    "list": ([1, "a", None], "1, a, none"),
    "empty": ({}, "none"),
    "tensor": (tf.constant(0.5), "0.5"),
}


def test_metrics_of_every_type_are_in_the_card(encoder):
    metrics = {name: value for name, (value, _) in METRICS.items()}
    text = card.model_card(encoder, metrics={**metrics, "nested": metrics, 3: {"deep": {"er": 1}}}, recipe=metrics)
    for name, (_, shown) in METRICS.items():
        for line in (f"| {name} | {shown} |", f"| nested / {name} | {shown} |", f"- {name}: {shown}"):
            assert line in text.splitlines()
    assert "| 3 / deep / er | 1 |" in text.splitlines()


@pytest.mark.parametrize("field", ["metrics", "recipe"])
@pytest.mark.parametrize("value", [{"a": object()}, {"a": {"b": [len]}}, [0.5], 0.5])
def test_unsupported_fields_are_rejected_before_writing(field, value, encoder, tmp_path):
    with pytest.raises(ValueError, match=f"`{field}` m"):
        export.save_encoder(encoder, tmp_path / "encoder", card={field: value})
    with pytest.raises(ValueError, match=f"`{field}` m"):
        export.to_huggingface(encoder, "me/encoder", tmp_path / "encoder", card={field: value})
    assert not list(tmp_path.iterdir())


def test_a_card_is_for_a_saved_model(encoder, tmp_path):
    with pytest.raises(ValueError, match="a model card are for a SavedModel"):
        export.save_encoder(encoder, tmp_path / "encoder.onnx", format="onnx", card={"data": "4 images"})


@pytest.mark.parametrize("shape", [(None, None, 3), (8, None, 1), (8, 8, 4), (8, 8, 7)])
def test_the_code_of_the_card_runs_for_other_images(shape, tmp_path):
    encoder = kb.encoders.resnet((1,), input_shape=shape, stem="small", width=4, mean=0.5, deviation=0.25)
    path = export.save_encoder(encoder, tmp_path / "encoder")
    # A grayscale photograph, with one channel in the file.
    keras.utils.save_img(tmp_path / "photo.png", IMAGES[0, ..., :1])
    code = (tmp_path / "encoder" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace('"FOLDER"', repr(path)).replace('"photo.jpg"', repr(str(tmp_path / "photo.png")))
    names = {}
    exec(code, names)
    assert names["features"].shape == (1, 4)


def test_invalid_utf8_in_the_card_is_escaped(encoder, tmp_path):
    export.save_encoder(encoder, tmp_path / "encoder", card={"data": "caf\udce9"})
    export.save_encoder(encoder, tmp_path / "encoder")
    text = card.model_card(encoder, data="caf\udce9")
    assert r"caf\udce9" in text and card.is_unchanged_card(text.encode())


CLASSIFIERS = {
    "more names": (lambda: export.Classifier("abcde", lambda x: x[:, :3], []), "5 names for scores of shape"),
    "fewer names": (lambda: export.Classifier("ab", lambda x: x[:, :3], []), "2 names for scores of shape"),
    "other features": (
        lambda: export.linear_head(np.eye(7), [0, 1] * 3 + [0]),
        r"features of the encoder, \(batch, 4\)",
    ),
    "no classifier": (lambda: "linear", "must be an export.Classifier"),
    "dictionary": (lambda: export.Classifier("ab", lambda x: {"a": x}, []), "2 names for scores"),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classifiers_that_do_not_fit_are_rejected(kind, encoder, tmp_path):
    make, message = CLASSIFIERS[kind]
    with pytest.raises(ValueError, match=message):
        export.save_encoder(encoder, tmp_path / "encoder", classifier=make())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("head", [export.linear_head, export.knn_head])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d", "e")])
def test_every_class_needs_one_name(head, names):
    arguments = {"k": 2} if head is export.knn_head else {}
    with pytest.raises(ValueError, match=f"{len(names)} names for 3 classes"):
        head(np.eye(3, dtype="float32"), [0, 1, 2], class_names=names, **arguments)
    assert head(np.eye(3, dtype="float32"), [0, 1, 2], class_names=[7, 8, 9], **arguments).class_names == (
        "7",
        "8",
        "9",
    )


def test_publishing_asks_for_its_client_first(encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kagglehub", None)
    with pytest.raises(ImportError, match="pip install kagglehub"):
        export.to_kaggle(encoder, "o/m/tensorFlow2/v", tmp_path / "kaggle")
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_is_removed_if_publishing_fails(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(saved_model, "save", fails)
    monkeypatch.setattr(huggingface_hub, "create_repo", fails)
    with pytest.raises(OSError, match="No space left"):
        export.to_huggingface(encoder, "me/encoder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "format, name, policy",
    shared.few(
        [
            (format, name, policy)
            for format, name in [("onnx", "encoder.onnx"), ("litert", "encoder.tflite")]
            for policy in ("mixed_bfloat16", "mixed_float16")
        ],
        *[("onnx", "encoder.onnx", "mixed_bfloat16"), ("litert", "encoder.tflite", "mixed_float16")],
    ),
)
def test_nested_models_in_mixed_precision_are_converted(policy, format, name, tmp_path):
    keras.config.set_dtype_policy(policy)
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(6, 3), layers.BatchNormalization(), layers.ReLU()])
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner, layers.Conv2D(4, 3)])
    encoder = kb.encoders.with_standardization(outer)
    expected = encoder.predict(IMAGES, verbose=0)
    policies = [layer.dtype_policy.name for layer in encoder._flatten_layers()]
    path = export.save_encoder(encoder, tmp_path / name, format=format)
    assert [layer.dtype_policy.name for layer in encoder._flatten_layers()] == policies and policy in policies
    images = (IMAGES / 255).astype("float32")
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        features = onnxruntime.InferenceSession(path).run(None, {"images": images})[0]
    else:
        interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(path)
        features = interpreter.get_signature_runner()(images=images)["output_0"]
    np.testing.assert_allclose(features, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("format, name", [("onnx", "encoder.onnx"), ("litert", "encoder.tflite")])
def test_an_unsupported_encoder_is_rejected_by_name(format, name, encoder, tmp_path, monkeypatch):
    def converter(*arguments, **options):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(keras.Model, "export", converter)
    monkeypatch.setattr(formats, "_litert", converter)
    with pytest.raises(ValueError, match="converter stopped: no such operation"):
        export.save_encoder(encoder, tmp_path / name, format=format)
    keras.config.set_dtype_policy("bfloat16")
    half = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)
    with pytest.raises(ValueError, match="needs weights in float32"):
        export.save_encoder(half, tmp_path / name, format=format)
    # Apply the remedy.
    keras.config.set_dtype_policy("float32")
    copy = kb.encoders.resnet((1,), input_shape=(8, 8, 3), stem="small", width=4)
    copy.set_weights([weight.astype("float32") for weight in half.get_weights()])
    monkeypatch.undo()
    assert export.save_encoder(copy, tmp_path / name, format=format) and not (tmp_path / "unfinished").exists()


def foreign(function, shape, dtype="float32"):
    module = tf.train.Checkpoint(weight=tf.Variable(2.0))
    module.__call__ = tf.function(lambda x, training=False: function(x))
    module.__call__.get_concrete_function(tf.TensorSpec(shape, dtype), training=False)
    return module


def without_call():
    module = tf.train.Checkpoint(weight=tf.Variable(2.0))
    module.serve = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None, 8, 8, 3))])
    return module


SAVED_MODELS = {
    "nothing to call": (without_call, "no function that accepts images"),
    "vectors": (lambda: foreign(lambda x: x, (None, 7)), r"a function of float32 \(None, 7\)"),
    "text": (lambda: foreign(tf.strings.length, (None,), "string"), r"a function of string \(None,\)"),
    "doubles": (lambda: foreign(lambda x: x[:, 0, 0], (None, 8, 8, 3), "float64"), "a function of float64"),
    "maps": (lambda: foreign(lambda x: x, (None, 8, 8, 3)), r"return features of shape \(batch, features\)"),
    "two outputs": (lambda: foreign(lambda x: (x[:, 0, 0],) * 2, (None, 8, 8, 3)), "return features of shape"),
    "one image": (lambda: foreign(lambda x: x[:, 0, 0], (1, 8, 8, 3)), "function of float32 \\(1, 8, 8, 3\\)"),
}


@pytest.mark.parametrize("kind", SAVED_MODELS)
def test_an_unsuitable_saved_model_is_rejected_at_load(kind, tmp_path):
    make, message = SAVED_MODELS[kind]
    with saved_model.without_progress_logs():
        tf.saved_model.save(make(), str(tmp_path))
    with pytest.raises(ValueError, match=f"SavedModel of an encoder must.*{message}"):
        kb.load_encoder(tmp_path)


def test_a_saved_model_of_the_common_signature_is_loaded(tmp_path):
    module = foreign(lambda x: 2.0 * x[:, 0, 0], (None, 8, 8, 3))
    with saved_model.without_progress_logs():
        tf.saved_model.save(module, str(tmp_path))
    features = kb.load_encoder(tmp_path).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(features, IMAGES[:, 0, 0] / 127.5, rtol=1e-6)


def test_an_export_by_keras_is_rejected_with_its_signatures(encoder, tmp_path):
    encoder(IMAGES)
    with saved_model.without_progress_logs():
        encoder.export(tmp_path / "keras", verbose=False)
    with pytest.raises(ValueError, match="its signatures: serve, serving_default"):
        kb.load_encoder(tmp_path / "keras")


def test_files_without_an_encoder_are_rejected_at_load(encoder, tmp_path):
    path = pathlib.Path(export.save_encoder(encoder, tmp_path / "encoder"))
    (path / "saved_model.pb").write_bytes(b"\x0a\xff\xff\xff\x0f" + b"no SavedModel")
    with pytest.raises(ValueError, match="A SavedModel must be readable"):
        kb.load_encoder(path)
    (tmp_path / "text.keras").write_text("no zip")
    with pytest.raises(ValueError, match="which Keras cannot load"):
        kb.load_encoder(tmp_path / "text.keras")
    vectors = keras.Input((7,))
    keras.Model(vectors, layers.Dense(2)(vectors)).save(tmp_path / "vectors.keras")
    with pytest.raises(ValueError, match=r"vectors.keras` must take images.*input_shape=\(None, 7\)"):
        kb.load_encoder(tmp_path / "vectors.keras")


def test_a_loaded_encoder_is_exported_again(encoder, tmp_path):
    expected = encoder.predict(IMAGES, verbose=0)
    loaded = kb.load_encoder(export.save_encoder(encoder, tmp_path / "first"))
    again = kb.load_encoder(export.save_encoder(loaded, tmp_path / "second"))
    np.testing.assert_allclose(again.predict(IMAGES, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_an_export_logs_nothing_and_restores_the_loggers(encoder, tmp_path, caplog):
    filters = [list(logging.getLogger(name).filters) for name in ("absl", "tensorflow")]
    with caplog.at_level(logging.INFO, "absl"), caplog.at_level(logging.INFO, "tensorflow"):
        export.save_encoder(encoder, tmp_path / "encoder")
        assert not caplog.records
        assert [list(logging.getLogger(name).filters) for name in ("absl", "tensorflow")] == filters
        logging.getLogger("tensorflow").info("other lines stay")
    assert len(caplog.records) == 1
