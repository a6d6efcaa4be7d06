"""Runs a SavedModel in TensorFlow's C++ runtime through its C API, without importing TensorFlow's Python package.

python c_runtime.py FOLDER INPUT_OPERATION OUTPUT_OPERATION OUTPUT_INDEX IMAGES.npy FEATURES.npy
"""

import ctypes
import importlib.util
import pathlib
import sys

import numpy as np

FLOAT, UINT8 = 1, 4


class Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def library():
    place = pathlib.Path(importlib.util.find_spec("tensorflow").submodule_search_locations[0])
    ctypes.CDLL(str(next(place.glob("libtensorflow_framework.so*"))), mode=ctypes.RTLD_GLOBAL)
    tensorflow = ctypes.CDLL(str(next(place.glob("libtensorflow_cc.so*"))))
    for name in ("NewSessionOptions", "NewStatus", "NewGraph", "LoadSessionFromSavedModel", "GraphOperationByName"):
        getattr(tensorflow, f"TF_{name}").restype = ctypes.c_void_p
    for name in ("AllocateTensor", "TensorData"):
        getattr(tensorflow, f"TF_{name}").restype = ctypes.c_void_p
    tensorflow.TF_Message.restype = ctypes.c_char_p
    tensorflow.TF_Dim.restype = ctypes.c_int64
    return tensorflow


def main(folder, input_name, output_name, output_index, images_path, features_path):
    tensorflow = library()
    status, graph = (ctypes.c_void_p(tensorflow.TF_NewStatus()), ctypes.c_void_p(tensorflow.TF_NewGraph()))

    def check():
        if tensorflow.TF_GetCode(status):
            sys.exit(tensorflow.TF_Message(status).decode())

    tags = (ctypes.c_char_p * 1)(b"serve")
    options = ctypes.c_void_p(tensorflow.TF_NewSessionOptions())
    session = ctypes.c_void_p(
        tensorflow.TF_LoadSessionFromSavedModel(options, None, folder.encode(), tags, 1, graph, None, status)
    )
    check()

    def place(name, index):
        return Output(tensorflow.TF_GraphOperationByName(graph, name.encode()), index)

    images = np.ascontiguousarray(np.load(images_path))
    kind = UINT8 if images.dtype == np.uint8 else FLOAT
    shape = (ctypes.c_int64 * images.ndim)(*images.shape)
    inputs = ctypes.c_void_p(tensorflow.TF_AllocateTensor(kind, shape, images.ndim, ctypes.c_size_t(images.nbytes)))
    ctypes.memmove(tensorflow.TF_TensorData(inputs), images.ctypes.data, images.nbytes)
    result = ctypes.c_void_p()
    tensorflow.TF_SessionRun(
        session,
        None,
        *(ctypes.byref(place(input_name, 0)), ctypes.byref(inputs), 1),
        *(ctypes.byref(place(output_name, int(output_index))), ctypes.byref(result), 1),
        *(None, 0, None),
        status,
    )
    check()
    shape = [tensorflow.TF_Dim(result, axis) for axis in range(2)]
    count = int(np.prod(shape))
    numbers = (ctypes.c_float * count).from_address(tensorflow.TF_TensorData(result))
    np.save(features_path, np.array(numbers, "float32").reshape(shape))
    assert "tensorflow" not in sys.modules and "keras_barlow" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
