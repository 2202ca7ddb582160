"""`python -m server.processes.gpu_probe`: status 0 if a process can use the first GPU, by CUDA's driver API."""

import ctypes
import sys


def main() -> int:
    """Make the context that a process of PyTorch or vLLM would make; the driver's error code, or 0."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context = ctypes.c_void_p()
    status: int = cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    return status


if __name__ == "__main__":
    sys.exit(min(main(), 1))
