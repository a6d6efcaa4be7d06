"""The state of callbacks, as numbers, text and arrays that a checkpoint can hold."""

import collections
import functools
import inspect
import io
import pathlib
import types

import keras
import numpy as np
import tensorflow as tf

from keras_barlow import keras_internals

# State of the callbacks of Keras and of this package. Their other attributes are arguments, or set by each run.
_ATTRIBUTES = {
    **keras_internals.CALLBACK_STATE,
    "StopOnNonFiniteLoss": ("_skipped", "_in_a_row"),
}
# Callbacks that every run has or that only log. There is no warning if their state cannot be resumed.
UNIMPORTANT = ("History", "StopOnNonFiniteLoss", "TensorBoard", "ProgbarLogger")
_LIBRARIES = ("keras", "keras_barlow")

_PLAIN = (type(None), bool, int, float, str)
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_STATELESS = (*_FUNCTIONS, type, types.ModuleType, pathlib.PurePath, tf.data.Dataset, io.IOBase)
_MAX_DEPTH = 20
# A larger array that existed before training is data, not state.
_MAX_ARRAY_BYTES = 2**24


class NotPlain(TypeError):
    """Raised for a value that is not made of numbers, text and arrays."""


def by_name(callbacks):
    """Names callbacks so that another run with the same list uses the same names.

    Args:
        callbacks: List of Keras callbacks.

    Returns:
        A dictionary from names to callbacks.

    Example:

    >>> list(by_name([keras.callbacks.EarlyStopping(), keras.callbacks.EarlyStopping()]))
    ['EarlyStopping#0', 'EarlyStopping#1']
    """
    counts, names = collections.Counter(), {}
    for callback in callbacks:
        kind = type(callback).__name__
        names[f"{kind}#{counts[kind]}"] = callback
        counts[kind] += 1
    return names


class Memory:
    """Reads and restores the state of a callback.

    A callback with `get_state()` and `set_state(state)` does this itself. Otherwise the state consists of attributes.
    Those of Keras' callbacks are listed in a table. Of a user's class, all attributes made of numbers, text, arrays,
    variables and containers of them are state. Attributes named like a constructor argument are settings of the new
    run, unless they have changed since training started.

    Args:
        callback: `keras.callbacks.Callback`.
        model: `keras.Model` that is trained, whose layers are not saved again; or None.

    Raises:
        ValueError: If the callback has only one of `get_state` and `set_state`.
    """

    def __init__(self, callback, model=None):
        self.callback = callback
        self._parts = [] if model is None else keras_internals.flat_layers(model)
        functions = [callable(getattr(callback, name, None)) for name in ("get_state", "set_state")]
        if any(functions) and not all(functions):
            raise ValueError(
                "A callback that manages its own state needs both `get_state()` and `set_state(state)`. Received: "
                f"{type(callback).__name__} with only one of them. Add the other method."
            )
        self._manages_state = all(functions)
        classes = [cls for cls in type(callback).__mro__ if cls is not object]
        library_classes = [cls for cls in classes if cls.__module__.split(".")[0] in _LIBRARIES]
        user_classes = [cls for cls in classes if cls not in library_classes]
        self._state_attributes = [name for cls in library_classes for name in _ATTRIBUTES.get(cls.__name__, ())]
        mentioned = [name for cls in library_classes for name in _names_in(cls)]
        self._library_attributes = {*keras_internals.CALLBACK_ATTRIBUTES, *mentioned}
        self._is_users = bool(user_classes)
        self._arguments = {name for cls in user_classes for name in _arguments_of(cls)}
        self._before = dict(vars(callback))

    def read(self):
        """Returns the state of the callback.

        Returns:
            The triple `(state, arrays, left_out)`: a JSON-serializable state, the list of arrays that it refers to by
            number, and a list of strings that describe attributes that may be state and cannot be saved.

        Raises:
            NotPlain: If `get_state` returns anything but numbers, text and arrays.
        """
        arrays = []
        if self._manages_state:
            return encode(self.callback.get_state(), arrays), arrays, []
        state, left_out = {}, []
        for name in self._names():
            value = getattr(self.callback, name)
            try:
                own_arrays = []
                state[name] = encode(value, own_arrays, len(arrays))
                arrays += own_arrays
            except NotPlain:
                if self._may_matter(value):
                    left_out.append(f"{type(self.callback).__name__}.{name} ({type(value).__name__})")
        return state, arrays, left_out

    def write(self, state, arrays):
        """Restores the state that `read` returned.

        Args:
            state: JSON-serializable state.
            arrays: List of arrays that the state refers to.
        """
        if self._manages_state:
            self.callback.set_state(decode(state, arrays))
            return
        for name, value in state.items():
            value, current = decode(value, arrays), getattr(self.callback, name, None)
            if isinstance(current, (keras.Variable, tf.Variable)):
                current.assign(value)
            elif isinstance(current, dict) and type(current) is not dict:
                # A `defaultdict` or `Counter`: decoding would turn it into a plain dictionary.
                current.clear()
                current.update(value)
            else:
                setattr(self.callback, name, value)

    def _names(self):
        attributes = vars(self.callback)
        users = [name for name in attributes if name not in self._library_attributes] if self._is_users else []
        names = [name for name in self._state_attributes if name in attributes]
        return names + [name for name in users if self._is_state(name)]

    def _is_state(self, name):
        value = vars(self.callback)[name]
        existed = name in self._before
        if existed and value is self._before[name] and getattr(value, "nbytes", 0) > _MAX_ARRAY_BYTES:
            return False
        if name not in self._arguments:
            return True
        return existed and isinstance(value, _PLAIN) and value != self._before[name]

    def _may_matter(self, value):
        if isinstance(value, (list, tuple)):
            return any(self._may_matter(item) for item in value)
        if isinstance(value, dict):
            return any(self._may_matter(item) for item in value.values())
        return not isinstance(value, (*_PLAIN, *_STATELESS)) and not any(value is part for part in self._parts)


def encode(value, arrays, first=0, depth=0):
    """Converts a value to a JSON-serializable one and a list of arrays.

    Args:
        value: None, a boolean, number, string, bytes, array, tensor or variable, or a list, tuple, set, deque or
            dictionary of such values.
        arrays: List to which arrays are appended.
        first: Number of the first array in the list.
        depth: Number of containers around the value.

    Returns:
        A JSON-serializable value, which refers to arrays by number.

    Raises:
        NotPlain: If the value contains anything else.

    Example:

    >>> arrays = []
    >>> decode(encode({"best": (1, float("inf")), "mean": np.zeros(2)}, arrays), arrays)
    {'best': (1, inf), 'mean': array([0., 0.])}
    """

    def inside(items):
        return [encode(item, arrays, first, depth + 1) for item in items]

    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > _MAX_DEPTH:
        raise NotPlain("nested too deeply")
    for name, container in _CONTAINERS.items():
        if kind is container:
            return {name: inside(value)}
    if kind in (dict, collections.defaultdict, collections.OrderedDict, collections.Counter):
        return {"dict": [inside(pair) for pair in value.items()]}
    if kind is collections.deque:
        return {"deque": inside(value), "longest": value.maxlen}
    if kind is bytes:
        return {"bytes": value.hex()}
    if isinstance(value, (np.ndarray, np.generic, tf.Variable, keras.Variable)) or keras.ops.is_tensor(value):
        return _encode_array(value, arrays, first)
    raise NotPlain(f"{kind.__name__} is not made of numbers, text and arrays")


def decode(value, arrays):
    """Reverses `encode`.

    Args:
        value: Return value of `encode`.
        arrays: List of arrays that the value refers to.

    Returns:
        The original value, with dictionaries of all kinds as plain dictionaries and variables as arrays.
    """
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = arrays[value["array"]]
        # NumPy does not know bfloat16 and loads it as bytes.
        array = array.view(tf.as_dtype(value["dtype"]).as_numpy_dtype) if array.dtype.kind == "V" else array
        if value.get("tensor"):
            return tf.constant(array)
        return array[()] if value.get("scalar") else array
    if "dict" in value:
        return {decode(key, arrays): decode(item, arrays) for key, item in value["dict"]}
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "deque" in value:
        return collections.deque((decode(item, arrays) for item in value["deque"]), value["longest"])
    ((name, items),) = value.items()
    return _CONTAINERS[name](decode(item, arrays) for item in items)


def _encode_array(value, arrays, first):
    kind = "tensor" if isinstance(value, tf.Tensor) else "scalar" if isinstance(value, np.generic) else "plain"
    # Copy, because the callback may change the array while the checkpoint is written.
    array = np.array(value if isinstance(value, (np.ndarray, np.generic)) else keras.ops.convert_to_numpy(value))
    if array.dtype.kind in "OMm":
        raise NotPlain(f"an array of {array.dtype}")
    arrays.append(array)
    return {"array": first + len(arrays) - 1, "dtype": str(array.dtype), kind: True}


def _names_in(cls):
    """Returns the names of attributes that the methods of a class mention."""
    codes = (getattr(inspect.unwrap(item), "__code__", None) for item in vars(cls).values() if callable(item))
    return {name for code in codes if code for name in code.co_names}


def _arguments_of(cls):
    if "__init__" not in vars(cls):
        return ()
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
