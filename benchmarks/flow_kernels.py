"""Times each of a flow's kernels at the released size over candidate launch shapes, compared with PyTorch.

    python -m benchmarks.flow_kernels [--family cosyvoice3] [--frames 300 768 3072 8192] [--kernels qkv out …]

Used to tune `vllm_cosyvoice/flow/cuda/launch_shapes.py`. All frames are doubled, as in the estimator.
"""

import argparse
import itertools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from triton.testing import do_bench_cudagraph

from vllm_cosyvoice.flow.cuda.kernels import (
    Layer,
    Modulation,
    Norm,
    Shape,
    attention,
    gated,
    linear,
    norm_mish,
    position_conv,
)
from vllm_cosyvoice.flow.torch.dit import POSITION_GROUPS, POSITION_KERNEL, rotations


class Family(NamedTuple):
    """The kernels of an estimator of the released size and their widths."""

    kernels: tuple[str, ...]
    channels: int
    hidden: int
    heads: int
    modulated: bool = False  # by the time, as a diffusion transformer is


BLOCK = ("qkv", "feed_in", "out", "feed_out", "attention", "attention_chunked")
FAMILIES = {
    "cosyvoice2": Family((*BLOCK, "conv", "conv_shortcut", "norm_mish"), 256, 1024, 8),
    "cosyvoice3": Family((*BLOCK, "position"), 1024, 2048, 16, modulated=True),
}
HEAD_DIM, ROW = 64, 750
COMPILERS = 14  # processes
Run = Callable[[], object]


def _shapes(
    rows: tuple[int, ...], columns: tuple[int, ...], depths: tuple[int, ...], stages: tuple[int, ...]
) -> list[Shape]:
    shapes = []
    for r, c, d, s in itertools.product(rows, columns, depths, stages):
        for warps in (4, 8):
            if (warps == 8) <= (r * c >= 64 * 128) and (warps == 4) <= (r * c < 128 * 256):
                shapes.append(Shape(r, c, d, warps, s))
    return shapes


def candidates(family: str, kernel: str, frames: int) -> list[Shape]:
    """The shapes to try for `kernel` in a call of `frames`."""
    small = frames <= 1024
    if FAMILIES[family].modulated and kernel in ("qkv", "feed_in", "out", "feed_out"):
        by_cublas = [Shape(rows, columns, 0, 4, 1) for rows in (2, 4, 8) for columns in (256, 512, 1024)]
        return _shapes((64, 128), (64, 128, 256), (64,), (3, 4, 5)) + by_cublas
    match kernel:
        case "qkv" | "feed_in":
            return _shapes((64, 128), (64, 128, 256) if small else (128, 256), (64, 128), (3, 4))
        case "out" | "feed_out" | "conv" | "conv_shortcut":
            if small:
                return _shapes((32, 64), (32, 64, 128), (64, 128), (3, 4))
            return _shapes((64, 128), (64, 128, 256), (64, 128), (3, 4))
        case "position":
            return [Shape(rows, 0, 0, 4, stages) for rows in (32, 64, 128) for stages in (2, 3, 4)]
        case "norm_mish":
            return [Shape(rows, 0, 0, warps, 1) for rows in (2, 4, 8, 16) for warps in (1, 2, 4)]
        case "attention" | "attention_chunked":
            few = [Shape(rows, keys, 0, warps, stages) for rows, warps in ((16, 1), (32, 1), (32, 2), (32, 4))
                   for keys in (64, 128) for stages in (2, 3)]  # fmt: skip
            return _shapes((64, 128), (64, 128), (0,), (2, 3)) + (few if small else [])
    raise ValueError(f"there is no kernel {kernel!r}")


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16) / 8


def _layer(inputs: int, outputs: int) -> Layer:
    zeros = torch.zeros(outputs, device="cuda")
    return Layer(_random(outputs, inputs), zeros, zeros)


def tiles_of(frames: int, queries: int, chunk: int) -> Tensor:
    """The attention tiles of rows of `ROW` frames."""
    tiles = []
    for start in range(0, frames, ROW):
        length = min(ROW, frames - start)
        tiles += [(start + q, q, start, length, min(chunk, length)) for q in range(0, length, queries)]
    return torch.tensor(tiles, dtype=torch.int32, device="cuda")


def run(family: str, kernel: str, frames: int) -> tuple[Callable[[Shape], Run], Run, float]:
    """Return a launcher of `kernel` for a candidate, PyTorch's equivalent, and the floating-point operations."""
    _, channels, hidden, heads, modulated = FAMILIES[family]
    width, rows = heads * HEAD_DIM, 2 * frames
    x = _random(rows, channels)
    sums = torch.ones(rows, 4, 2, device="cuda")
    positions = (torch.arange(frames, device="cuda") % ROW).int()
    match kernel:
        case "qkv" | "feed_in":
            layer = _layer(channels, 3 * width if kernel == "qkv" else hidden)
            activation = "" if kernel == "qkv" else "gelu_tanh" if modulated else "gelu"
            rotation = rotations(ROW, HEAD_DIM, x.device) if modulated and kernel == "qkv" else None
            return (
                lambda shape: (
                    lambda: linear(x, positions, layer, shape, sums=sums, activation=activation, rotation=rotation)
                ),
                lambda: F.linear(x, layer.weight),
                2.0 * rows * layer.weight.numel(),
            )
        case "out" | "feed_out":
            layer = _layer(width if kernel == "out" else hidden, channels)
            a = _random(rows, layer.weight.shape[1])
            modulation = Modulation(layer.bias, layer.bias)
            return (
                (lambda shape: lambda: gated(a, positions, layer, shape, x, modulation))
                if modulated
                else (lambda shape: lambda: linear(a, positions, layer, shape, residual=x)),
                lambda: F.linear(a, layer.weight),
                2.0 * rows * layer.weight.numel(),
            )
        case "position":
            group = channels // POSITION_GROUPS
            conv = _layer(POSITION_KERNEL * group, channels)
            return (
                lambda shape: (
                    lambda: position_conv(x, positions, conv, POSITION_GROUPS, shape, residual=x, norm_weight=conv.bias)
                ),
                lambda: F.conv1d(
                    x.T, conv.weight.view(channels, group, -1), padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS
                ),
                2.0 * rows * conv.weight.numel(),
            )
        case "conv" | "conv_shortcut":
            outputs = channels if kernel == "conv" else 2 * channels
            layer = _layer(3 * channels, outputs)
            wide = _random(rows, 3 * channels)
            return (
                lambda shape: lambda: linear(x, positions, layer, shape, newest_from=channels),
                lambda: F.linear(wide, layer.weight),
                2.0 * rows * channels * (3 if kernel == "conv" else 4) * channels,
            )
        case "norm_mish":
            norm = Norm(torch.ones(channels, device="cuda"), torch.zeros(channels, device="cuda"))
            return (
                lambda shape: lambda: norm_mish(x, positions, norm, shape, x),
                lambda: F.layer_norm(x, (channels,)),
                0.0,
            )
        case _:
            chunk = ROW if kernel == "attention" else 50
            qkv = _random(rows, 3 * width)
            tables = {queries: tiles_of(frames, queries, chunk) for queries in (16, 32, 64, 128)}
            lengths = [min(ROW, frames - start) for start in range(0, frames, ROW)]
            pairs = sum(sum(min(n, (q // chunk + 1) * chunk) for q in range(n)) for n in lengths)
            batch, length = max(1, rows // ROW), min(ROW, frames)
            q, k, v = (_random(batch, heads, length, HEAD_DIM) for _ in range(3))
            return (
                lambda shape: lambda: attention(qkv, tables[shape.rows], heads, shape, halves=2),
                lambda: F.scaled_dot_product_attention(q, k, v),
                2 * 4.0 * width * pairs,
            )


def compile_one(family: str, kernel: str, frames: int, shape: Shape) -> str | None:
    """Launch a kernel once to put it into Triton's cache on disk; return the reason if this fails."""
    try:
        run(family, kernel, frames)[0](shape)()
        torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__} {str(error).splitlines()[0][:80]}"
    return None


def main() -> None:
    """Compile all candidates in parallel, then time them one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="cosyvoice2")
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 768, 3072, 8192])
    parser.add_argument("--kernels", nargs="+", help="default: all of the family")
    parser.add_argument("--best", type=int, default=4, help="candidates to print per kernel")
    arguments = parser.parse_args()
    family: str = arguments.family
    kernels = FAMILIES[family].kernels
    if unknown := set(arguments.kernels or ()).difference(kernels):
        parser.error(f"--kernels {', '.join(unknown)}: {family} has {', '.join(kernels)}")
    works = list(itertools.product(arguments.kernels or kernels, arguments.frames))
    tasks = list(dict.fromkeys((family, k, 64, c) for k, n in works for c in candidates(family, k, n)))
    with ProcessPoolExecutor(COMPILERS, mp_context=get_context("spawn")) as pool:
        problems = dict(zip(tasks, pool.map(compile_one, *zip(*tasks, strict=True), chunksize=4), strict=True))
    for kernel, frames in works:
        launch, plain, operations = run(family, kernel, frames)
        plain_ms = do_bench_cudagraph(plain, rep=10)
        print(f"{kernel} frames {frames}: PyTorch {1000 * plain_ms:.1f} us, {operations / plain_ms / 1e9:.0f} TFLOP/s")
        times = {}
        for shape in candidates(family, kernel, frames):
            if problems[family, kernel, 64, shape] is None:
                times[shape] = do_bench_cudagraph(launch(shape), rep=4)
        for shape, ms in sorted(times.items(), key=lambda item: item[1])[: arguments.best]:
            print(f"    {1000 * ms:8.1f} us {operations / ms / 1e9:5.0f} TFLOP/s  {tuple(shape)}")
    reasons = sorted({reason for reason in problems.values() if reason})
    print(f"{sum(map(bool, problems.values()))} of {len(problems)} can't be launched:", *reasons[:5], sep="\n    ")


if __name__ == "__main__":
    main()
