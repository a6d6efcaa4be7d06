"""Import paths of release 0.1. They work, with a deprecation warning, until release 0.3."""

import importlib
import importlib.abc
import importlib.util
import sys
import types
import warnings

_PACKAGE = "keras_barlow"
# Old path: modules that have its names now, most public first.
MOVED = {
    "ablations": ("recipes.ablations",),
    "asymmetry": ("pretraining.momentum", "networks"),
    "augmentations.base": ("augmentations.transform",),
    "augmentations.rarity": ("augmentations.sparse",),
    "barlow_twins": ("methods.barlow_twins",),
    "callbacks.records": ("callbacks.metrics_log",),
    "callbacks.workers": ("pretraining.worker_callbacks",),
    "data.loading": ("data", "data.loader"),
    "data.records": ("data.tfds",),
    "evaluation.heads": (
        "evaluation.head_training",
        "evaluation.fine_tuning",
        "evaluation.frozen_probes",
        "evaluation.input_checks",
    ),
    "export.heads": ("export", "export.classifier"),
    "export.loading": ("export", "export.reading"),
    "fitting": ("pretraining.fit",),
    "gallery": ("retrieval",),
    "gallery.extraction": ("retrieval.extraction",),
    "gallery.fingerprints": ("retrieval.fingerprints",),
    "gallery.similarity": ("retrieval.similarity",),
    "gallery.storage": ("retrieval.storage",),
    "inputs": ("pretraining.checks",),
    "normalization": ("layers",),
    "ops": ("losses", "losses.correlation"),
    "penalties": ("pretraining.penalties",),
    "projector": ("layers",),
    "tensorflow_step": ("pretraining.tensorflow_step",),
    "training_data": ("pretraining.arguments",),
}

# Old attribute: module that has it now.
MOVED_NAMES = {
    "callbacks.for_this_worker": "pretraining.worker_callbacks",
}


class _OldPaths(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules in `MOVED`, which no longer exist, from their new paths."""

    def find_spec(self, name, path=None, target=None):
        package, _, old = name.partition(".")
        if package != _PACKAGE or old not in MOVED:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=any(key.startswith(f"{old}.") for key in MOVED))

    def create_module(self, spec):
        return types.ModuleType(spec.name)

    def exec_module(self, module):
        new = [f"{_PACKAGE}.{name}" for name in MOVED[module.__name__.partition(".")[2]]]
        warnings.warn(
            f"{module.__name__} is now {new[0]}. The old path will be removed in 0.3.", DeprecationWarning, stacklevel=2
        )
        modules = [importlib.import_module(name) for name in new]

        def find(name):
            for candidate in modules:
                if hasattr(candidate, name):
                    return getattr(candidate, name)
            raise AttributeError(f"module {module.__name__!r} (now {new[0]}) has no attribute {name!r}")

        module.__getattr__ = find
        module.__all__ = getattr(modules[0], "__all__", [name for name in vars(modules[0]) if not name.startswith("_")])


def install():
    """Makes the old paths importable."""
    if not any(isinstance(finder, _OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(_OldPaths())


def attribute(name):
    """Returns the object behind an old attribute of the package, such as `keras_barlow.ops`.

    Args:
        name: Name of the attribute, relative to the package.

    Returns:
        A module, or a function that is in another module now.

    Raises:
        AttributeError: If the package never had this attribute.
    """
    if name in MOVED_NAMES:
        new = f"{_PACKAGE}.{MOVED_NAMES[name]}"
        text = f"{_PACKAGE}.{name} is now in {new}. The old name will be removed in 0.3."
        warnings.warn(text, DeprecationWarning, stacklevel=3)
        return getattr(importlib.import_module(new), name.rpartition(".")[2])
    if name not in MOVED:
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
    return importlib.import_module(f"{_PACKAGE}.{name}")
