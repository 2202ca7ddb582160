"""How long the vocoder takes on a GPU, eager and packed, with random weights of the released sizes.

python -m benchmarks.vocoder            every case, and how near the packed one is to float32
python -m benchmarks.vocoder --tune     instead, the kernel's tiles for each stage, on short and long calls
python -m benchmarks.vocoder --profile  instead, which kernels take the time
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import triton.testing
from torch import Tensor

from vllm_cosyvoice.config import FRAME_RATE, MEL_BINS, VocoderConfig
from vllm_cosyvoice.random_checkpoint.weights import vocoder_weights
from vllm_cosyvoice.vocoder import Vocoder, VocoderRow
from vllm_cosyvoice.vocoder.convolution import Tile, Windows
from vllm_cosyvoice.vocoder.packed_generator import SUM_TYPE
from vllm_cosyvoice.vocoder.packed_vocoder import PackedVocoder

CASES = ((1, 30), (1, 66), (8, 100), (32, 250), (32, 516), (64, 516))  # rows, frames of each
CONFIG = VocoderConfig()
FLOPS = 612e6  # a frame
TRAFFIC_UNITS = 73  # tensors that the packed generator's convolutions read or write in a stage
PEAK_FLOPS, PEAK_BANDWIDTH = 790e12, 4.8e12  # an H200's, dense float16 as it can be attained
ROUNDS = 5
STAGE_KERNELS = "up, down, source block (6), blocks (6);"
# m, n, k, warps, stages
TILES = {
    256: ((128, 128, 64, 8, 4), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (64, 256, 64, 8, 3), (64, 128, 64, 4, 4)),
    128: ((128, 128, 64, 8, 4), (128, 128, 64, 8, 3), (256, 128, 64, 8, 3), (64, 128, 64, 4, 4), (128, 128, 32, 8, 4)),
    64: ((128, 64, 64, 4, 4), (128, 64, 64, 4, 3), (256, 64, 64, 8, 3), (256, 64, 64, 8, 4), (64, 64, 64, 4, 4)),
}


def traffic() -> float:
    """Bytes a frame that the packed generator's convolutions read and write at least, each tensor once."""
    total, rate = 0.0, 1
    for stage, factor in enumerate(CONFIG.upsample_rates):
        rate *= factor
        total += TRAFFIC_UNITS * (CONFIG.base_channels >> stage + 1) * rate * SUM_TYPE.itemsize
    return total


def mel(frames: int, seed: int) -> Tensor:
    """Noise that moves slowly, around the log-mel of speech."""
    noise = torch.randn(1, MEL_BINS, frames + 4, generator=torch.Generator().manual_seed(seed))
    return 4 * torch.nn.functional.avg_pool1d(noise, 5, 1)[0].T.contiguous().cuda() - 6


def rows_of(rows: int, frames: int, harmonics: int) -> list[VocoderRow]:
    """`rows` whole utterances."""
    phase = torch.zeros(harmonics, dtype=torch.float64, device="cuda")
    return [VocoderRow(mel(frames, row), phase, at=0, end=frames, noise_start=997 * row) for row in range(rows)]


def milliseconds(call: Callable[[], object]) -> tuple[float, float]:
    """Of one call among several in a row: between two events on the device, and of the host until it has launched."""
    call()
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    began = time.perf_counter()
    first.record()
    for _ in range(ROUNDS):
        call()
    last.record()
    host = (time.perf_counter() - began) * 1000 / ROUNDS
    torch.cuda.synchronize()
    return first.elapsed_time(last) / ROUNDS, host


def signal_to_noise(exact: list[Tensor], other: list[Tensor]) -> float:
    """In dB."""
    signal, noise = torch.cat(exact), torch.cat(other) - torch.cat(exact)
    return float(20 * torch.log10(signal.norm() / noise.norm()))


def compare(eager: Vocoder, packed: PackedVocoder) -> list[dict[str, float]]:
    """Time both in every case."""
    figures = []
    free = torch.cuda.mem_get_info()[0]
    began = time.perf_counter()
    packed.capture()
    torch.cuda.synchronize()
    taken = (free - torch.cuda.mem_get_info()[0]) / 2**30
    print(f"compiled and captured in {time.perf_counter() - began:.1f} s, {taken:.2f} GiB")
    floor = max(FLOPS / PEAK_FLOPS, traffic() / PEAK_BANDWIDTH)
    print(f"roofline {floor * 1e6:.2f} µs a frame: {FLOPS / 1e6:.0f} MF, {traffic() / 1e6:.2f} MB")
    print("rows × frames | eager ms | packed ms | host ms | a-s/s | TFLOP/s | GB/s | of roofline | SNR dB")
    for count, frames in CASES:
        rows = rows_of(count, frames, eager.source.harmonics)
        exact, _ = eager(rows)
        near, _ = packed(rows)
        quality = signal_to_noise(exact, near)
        del exact, near
        slow, _ = milliseconds(lambda rows=rows: eager(rows))  # type: ignore[misc]
        torch.cuda.empty_cache()
        fast, host = milliseconds(lambda rows=rows: packed(rows))  # type: ignore[misc]
        total, seconds = count * frames, fast / 1000
        figures.append(
            {"rows": count, "frames": frames, "eager_ms": slow, "packed_ms": fast, "host_ms": host, "snr_db": quality}
        )
        print(
            f"{count:>4} × {frames:<6} | {slow:8.2f} | {fast:9.3f} | {host:7.3f} | {total / FRAME_RATE / seconds:8,.0f}"
            f" | {FLOPS * total / seconds / 1e12:5.0f} | {traffic() * total / seconds / 1e9:5.0f}"
            f" | {floor * total / seconds:6.1%} | {quality:.1f}",
            flush=True,
        )
    return figures


def tune(packed: PackedVocoder) -> None:
    """Time the second convolutions of the residual blocks, the commonest kernel of each stage."""
    print("channels | frames | m n k warps stages | ms | TFLOP/s")
    for stage in packed.generator.stages:
        conv, activation = stage.blocks.convs2[0], stage.blocks.behind[0]
        for frames in (64, 4096):
            starts = torch.zeros(frames, dtype=torch.int32, device="cuda")
            windows = Windows(starts, starts + frames - 1)
            x = torch.randn(conv.groups, frames * conv.rate, conv.inputs, dtype=torch.float16, device="cuda")
            raw = torch.empty_like(x)
            for tile in TILES[conv.outputs]:
                conv.tile = Tile(*tile)

                def call(x: Tensor = x, raw: Tensor = raw, windows: Windows = windows) -> None:
                    conv(x, windows, residual=x, raw=raw, activation=activation)  # noqa: B023

                spent = triton.testing.do_bench_cudagraph(call, rep=20)
                speed = conv.flops * frames / spent / 1e9
                print(f"{conv.outputs:8} | {frames:6} | {tile!s:22} | {spent:.4f} | {speed:.0f}", flush=True)


def profile(packed: PackedVocoder) -> None:
    """Print the kernels of a short and a long call: convolutions in their order, the rest by name."""
    packed.capture()
    for count, frames in ((1, 30), (8, 500)):
        rows = rows_of(count, frames, packed.source.harmonics)
        packed(rows)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            packed(rows)
            torch.cuda.synchronize()
        kernels = sorted(profiler.events(), key=lambda event: event.time_range.start)
        spent = [(event.name, event.time_range.elapsed_us()) for event in kernels]
        convolutions = [took for name, took in spent if name.startswith("_convolve")]
        others: dict[str, list[float]] = defaultdict(list)
        for name, took in spent:
            if not name.startswith("_convolve"):
                others[name[:110]].append(took)
        span = kernels[-1].time_range.end - kernels[0].time_range.start
        print(
            f"{count} × {frames}: {span:.0f} µs from first to last, {sum(took for _, took in spent):.0f} µs in kernels"
        )
        print(f"{len(convolutions)} convolutions {sum(convolutions):.0f} µs: first, stages of", STAGE_KERNELS, "last")
        print(*(f"{took:.1f}" for took in convolutions))
        for name, times in sorted(others.items(), key=lambda item: -sum(item[1]))[:12]:
            print(f"{sum(times):8.1f} µs {len(times):3} × {name}")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)
    eager = Vocoder.from_state(CONFIG, vocoder_weights(CONFIG, seed=0), "cuda")
    packed = PackedVocoder(eager)
    with torch.inference_mode():
        if arguments.tune:
            tune(packed)
        elif arguments.profile:
            profile(packed)
        else:
            figures = compare(eager, packed)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
