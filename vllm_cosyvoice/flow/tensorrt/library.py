"""The one place that imports TensorRT.

TensorRT for RTX has the same parser and builder, and is a package that a machine without a GPU can install: the tests
build networks with it. `tensorrt_estimator` runs engines with TensorRT alone.
"""

try:
    import tensorrt as trt
except ImportError:
    import tensorrt_rtx_bindings as trt

__all__ = ["trt"]
