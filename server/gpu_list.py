"""The GPUs of this machine. `python -m server.gpu_list` prints the bytes of memory of each, one number a line."""

import ctypes
import subprocess
import sys

DRIVER = "libcuda.so.1"
SECONDS_TO_ANSWER = 60.0


def memory_of_gpus() -> list[int]:
    """Return the bytes of memory of each GPU that CUDA may use here (`CUDA_VISIBLE_DEVICES`); empty without a driver.

    Another process asks the driver, so that this one does not hold the GPU.
    """
    command = [sys.executable, "-m", "server.gpu_list"]
    try:
        ctypes.CDLL(DRIVER)
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) for line in answer.stdout.split()]


def main() -> int:
    """Ask the CUDA driver; return 0 or its error code."""
    cuda = ctypes.CDLL(DRIVER)
    count, device, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    status: int = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        status = status or cuda.cuDeviceGet(ctypes.byref(device), index)
        status = status or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        print(memory.value)
    return status


if __name__ == "__main__":
    sys.exit(min(main(), 1))
