"""The only module that imports TensorRT.

TensorRT for RTX has the same parser and builder and can be installed without a GPU, so the tests build networks with
it. `tensorrt_estimator` runs engines only with TensorRT itself.
"""

try:
    import tensorrt as trt
except ImportError:
    import tensorrt_rtx_bindings as trt

__all__ = ["trt"]
