"""What callbacks remember from one step to the next, as numbers, text and arrays that a checkpoint can hold."""

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

# What Keras' and this library's own callbacks remember; their other attributes are arguments, or set up by each run.
_ATTRIBUTES = {
    **keras_internals.CALLBACK_STATE,
    "StopOnNonFiniteLoss": ("_skipped", "_in_a_row"),
}
# What every run has and what only draws a curve: nobody needs to hear that it begins anew.
UNIMPORTANT = ("History", "StopOnNonFiniteLoss", "TensorBoard", "ProgbarLogger")
_KNOWN_PACKAGES = ("keras", "keras_barlow")

_PLAIN = (type(None), bool, int, float, str)
_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_NO_MEMORY = (*_FUNCTIONS, type, types.ModuleType, pathlib.PurePath, tf.data.Dataset, io.IOBase)
_DEEPEST = 20
# An array that was there before training, and is larger than this, is data and not memory.
_LARGE = 2**24


class NotPlain(TypeError):
    """A value that is not made of numbers, text and arrays."""


def by_name(callbacks):
    """Names for callbacks that another run with the same list gives too.

    Args:
        callbacks: List of Keras callbacks.

    Returns:
        Dictionary from a name to a callback.

    Example:

    >>> list(by_name([keras.callbacks.EarlyStopping(), keras.callbacks.EarlyStopping()]))
    ['EarlyStopping#0', 'EarlyStopping#1']
    """
    counts, named = collections.Counter(), {}
    for callback in callbacks:
        kind = type(callback).__name__
        named[f"{kind}#{counts[kind]}"] = callback
        counts[kind] += 1
    return named


class Memory:
    """Reads what a callback remembers, and gives it back.

    `get_state()` and `set_state(state)` of the callback do it if it has both. Else it is attributes: a table of those
    of Keras' own callbacks; of a class of the user's own, all that it sets and that are plain: numbers, text, arrays,
    variables, and containers of them. Attributes with the name of an argument of its constructor are settings of the
    new run, unless they have changed since training began.

    Args:
        callback: `keras.callbacks.Callback`.
        model: The model that is trained, which nobody needs to save twice; or None.

    Raises:
        ValueError: If the callback has one of the two functions only.
    """

    def __init__(self, callback, model=None):
        self.callback = callback
        self._parts = [] if model is None else keras_internals.flat_layers(model)
        functions = [callable(getattr(callback, name, None)) for name in ("get_state", "set_state")]
        if any(functions) and not all(functions):
            raise ValueError(
                "A callback that keeps its own state needs both `get_state()` and `set_state(state)`. Received: "
                f"{type(callback).__name__} with one of them."
            )
        self._by_itself = all(functions)
        classes = [one for one in type(callback).__mro__ if one is not object]
        known = [one for one in classes if one.__module__.split(".")[0] in _KNOWN_PACKAGES]
        self._listed = [name for one in known for name in _ATTRIBUTES.get(one.__name__, ())]
        self._owned = {*keras_internals.CALLBACK_ATTRIBUTES, *(name for one in known for name in _names_in(one))}
        own = [one for one in classes if one not in known]
        self._users = bool(own)
        self._arguments = {name for one in own for name in _arguments_of(one)}
        self._before = dict(vars(callback))

    def read(self):
        """What the callback remembers.

        Returns:
            The triple `(state, arrays, left_out)`: what JSON can hold, a list of the arrays that it counts, and the
            attributes that may matter and cannot be saved, a list of strings.

        Raises:
            NotPlain: If `get_state` gives something else than numbers, text and arrays.
        """
        arrays = []
        if self._by_itself:
            return encode(self.callback.get_state(), arrays), arrays, []
        state, left_out = {}, []
        for name in self._names():
            value = getattr(self.callback, name)
            try:
                found = []
                state[name] = encode(value, found, len(arrays))
                arrays += found
            except NotPlain:
                if self._may_matter(value):
                    left_out.append(f"{type(self.callback).__name__}.{name} ({type(value).__name__})")
        return state, arrays, left_out

    def write(self, state, arrays):
        """Gives a callback what `read` gave.

        Args:
            state: What JSON can hold.
            arrays: List of arrays.
        """
        if self._by_itself:
            self.callback.set_state(decode(state, arrays))
            return
        for name, value in state.items():
            value, current = decode(value, arrays), getattr(self.callback, name, None)
            if isinstance(current, (keras.Variable, tf.Variable)):
                current.assign(value)
            elif isinstance(current, dict) and type(current) is not dict:
                # One with a default value, or that counts.
                current.clear()
                current.update(value)
            else:
                setattr(self.callback, name, value)

    def _names(self):
        attributes = vars(self.callback)
        users = [name for name in attributes if name not in self._owned] if self._users else []
        return [name for name in self._listed if name in attributes] + [name for name in users if self._remembers(name)]

    def _remembers(self, name):
        value = vars(self.callback)[name]
        known = name in self._before
        if known and value is self._before[name] and getattr(value, "nbytes", 0) > _LARGE:
            return False
        if name not in self._arguments:
            return True
        return known and isinstance(value, _PLAIN) and value != self._before[name]

    def _may_matter(self, value):
        if isinstance(value, (list, tuple)):
            return any(self._may_matter(one) for one in value)
        if isinstance(value, dict):
            return any(self._may_matter(one) for one in value.values())
        return not isinstance(value, (*_PLAIN, *_NO_MEMORY)) and not any(value is part for part in self._parts)


def encode(value, arrays, first=0, depth=0):
    """A value as JSON can hold it, and its arrays.

    Args:
        value: None, booleans, numbers, strings, bytes, arrays, tensors, variables, and lists, tuples, sets, deques and
            dictionaries of them.
        arrays: List to which the arrays are added.
        first: Number of the first of them.
        depth: How many containers it is in.

    Returns:
        What JSON can hold.

    Raises:
        NotPlain: If there is anything else in it.

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
    if depth > _DEEPEST:
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
    """What was given to `encode`.

    Args:
        value: What it gave.
        arrays: List of its arrays.

    Returns:
        The value, but dictionaries of all kinds as plain ones and variables as arrays.
    """
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = arrays[value["array"]]
        # NumPy has no name for bfloat16, and reads it as bytes.
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
    # A copy: the callback may go on counting in it while the checkpoint is written.
    array = np.array(value if isinstance(value, (np.ndarray, np.generic)) else keras.ops.convert_to_numpy(value))
    if array.dtype.kind in "OMm":
        raise NotPlain(f"an array of {array.dtype}")
    arrays.append(array)
    return {"array": first + len(arrays) - 1, "dtype": str(array.dtype), kind: True}


def _names_in(cls):
    """The attributes that the code of a class mentions."""
    codes = (getattr(inspect.unwrap(item), "__code__", None) for item in vars(cls).values() if callable(item))
    return {name for code in codes if code for name in code.co_names}


def _arguments_of(cls):
    if "__init__" not in vars(cls):
        return ()
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
