"""The GPUs of this machine. `python -m server.gpu_list` prints the bytes of memory of each, one number a line."""

import ctypes
import logging
import subprocess
import sys
from functools import cache

log = logging.getLogger(__name__)

CUDA = "libcuda.so.1"  # comes with the driver
NO_DEVICE = 100  # error code
SECONDS_TO_ANSWER = 30.0


@cache
def memory_of_gpus() -> list[int]:
    """Return the bytes of memory of each GPU that CUDA may use here (`CUDA_VISIBLE_DEVICES`); empty without a driver.

    Another process asks the driver, so that this one does not hold the GPU.
    """
    try:
        ctypes.CDLL(CUDA)
    except OSError:
        return []
    command = [sys.executable, "-m", "server.gpu_list"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=True)
        return [int(line) for line in answer.stdout.split()]
    except (subprocess.SubprocessError, ValueError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        log.warning("The GPUs can't be listed: %s", str(reason).strip())
        return []


def main() -> str | None:
    """Ask the CUDA driver; return what went wrong."""
    cuda = ctypes.CDLL(CUDA)
    count, device, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    status: int = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        status = status or cuda.cuDeviceGet(ctypes.byref(device), index)
        status = status or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        print(memory.value)
    return f"CUDA's driver reports error {status}." if status not in (0, NO_DEVICE) else None


if __name__ == "__main__":
    sys.exit(main())
