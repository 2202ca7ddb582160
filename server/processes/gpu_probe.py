"""`python -m server.processes.gpu_probe`: exit status 0 if a process can use the first GPU (CUDA driver API)."""

import ctypes
import sys

from server.gpu_list import CUDA


def main() -> int:
    """Create a CUDA context as PyTorch and vLLM do; returns 0 or the error code of the driver."""
    cuda = ctypes.CDLL(CUDA)
    context = ctypes.c_void_p()
    status: int = cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    return status


if __name__ == "__main__":
    sys.exit(min(main(), 1))
