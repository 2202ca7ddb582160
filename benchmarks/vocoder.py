"""Times the vocoder with random mel (on a GPU, the packed one), and compares it with float32.

python -m benchmarks.vocoder [--model_dir DIR | --size full] [--batch 1 8 …] [--tokens 25 250]
python -m benchmarks.vocoder --tune     times tiles of the kernel for each stage instead, in short and long calls
python -m benchmarks.vocoder --profile  shows the times of all kernels instead
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.measurement import Measurement, milliseconds, parser, report, synchronize
from benchmarks.model import model_directory
from benchmarks.roofline import Roofline
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import FRAME_RATE, FRAMES_PER_TOKEN, MEL_BINS
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.vocoder import AnyVocoder, VocoderRow
from vllm_cosyvoice.vocoder.backend import load_vocoder

if TYPE_CHECKING:
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

STAGE_KERNELS = "up, down, source block (6), blocks (6);"
# m, n, k, warps, stages
TILES = {
    256: ((128, 128, 64, 8, 4), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (64, 256, 64, 8, 3), (64, 128, 64, 4, 4)),
    128: ((128, 128, 64, 8, 4), (128, 128, 64, 8, 3), (256, 128, 64, 8, 3), (64, 128, 64, 4, 4), (128, 128, 32, 8, 4)),
    64: ((128, 64, 64, 4, 4), (128, 64, 64, 4, 3), (256, 64, 64, 8, 3), (256, 64, 64, 8, 4), (64, 64, 64, 4, 4)),
}


def mel(frames: int, seed: int, device: torch.device) -> Tensor:
    """Slowly changing noise in the range of the log-mel of speech."""
    noise = torch.randn(1, MEL_BINS, frames + 4, generator=torch.Generator().manual_seed(seed))
    return 4 * torch.nn.functional.avg_pool1d(noise, 5, 1)[0].T.contiguous().to(device) - 6


def rows_of(vocoder: AnyVocoder, rows: int, frames: int) -> list[VocoderRow]:
    """Create `rows` whole utterances."""
    source = vocoder.source
    device = source.noise.device
    phase = torch.zeros(source.harmonics, dtype=torch.float64, device=device)
    return [VocoderRow(mel(frames, row, device), phase, at=0, end=frames, noise_start=997 * row) for row in range(rows)]


def signal_to_noise(exact: list[Tensor], other: list[Tensor]) -> float:
    """The signal-to-noise ratio in dB."""
    signal, noise = torch.cat(exact), torch.cat(other) - torch.cat(exact)
    return float(20 * torch.log10(signal.norm() / noise.norm()))


def calls(
    exact: AnyVocoder, vocoder: AnyVocoder, roofline: Roofline, batch: list[int], tokens: list[int]
) -> Iterator[Measurement]:
    """Measure every case once."""
    for count in batch:
        for frames in (FRAMES_PER_TOKEN * length for length in tokens):
            rows = rows_of(exact, count, frames)
            ms, host = milliseconds(partial(vocoder, rows))
            notes = ""
            if vocoder is not exact:
                notes = f"host {host:.2f} ms, {signal_to_noise(exact(rows)[0], vocoder(rows)[0]):.1f} dB over the noise"
                torch.cuda.empty_cache()
            total = count * frames
            case = f"{count} × {frames} frames"
            yield Measurement("vocoder", case, ms, total / FRAME_RATE, roofline.vocoder(total), notes)


def tune(packed: "PackedVocoder") -> None:
    """Time the second convolutions of the residual blocks, the most frequent kernel of each stage."""
    from triton.testing import do_bench_cudagraph

    from vllm_cosyvoice.vocoder.cuda.convolution import Tile, Windows

    print("channels | frames | m n k warps stages | ms | TFLOP/s")
    for stage in packed.generator.stages:
        conv, activation = stage.blocks.convs2[0], stage.blocks.behind[0]
        for frames in (64, 4096):
            starts = torch.zeros(frames, dtype=torch.int32, device="cuda")
            windows = Windows(starts, starts + frames - 1, Gpu.of())
            x = torch.randn(conv.groups, frames * conv.rate, conv.inputs, dtype=torch.float16, device="cuda")
            raw = torch.empty_like(x)
            for tile in TILES[conv.outputs]:
                conv.tile = Tile(*tile)
                call = partial(conv, x, windows, residual=x, raw=raw, activation=activation)
                spent = do_bench_cudagraph(call, rep=20)
                speed = conv.flops * frames / spent / 1e9
                print(f"{conv.outputs:8} | {frames:6} | {tile!s:22} | {spent:.4f} | {speed:.0f}", flush=True)


def profile(packed: "PackedVocoder") -> None:
    """Print the kernels of a short and a long call: convolutions in order, the others by name."""
    for count, frames in ((1, 30), (8, 500)):
        rows = rows_of(packed, count, frames)
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
    """Measure and print a table, or tune or profile."""
    flags = parser(__doc__)
    flags.add_argument("--tune", action="store_true")
    flags.add_argument("--profile", action="store_true")
    arguments = flags.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and (arguments.tune or arguments.profile):
        flags.error("--tune and --profile need a GPU")
    with model_directory(arguments) as directory:
        model = open_model(directory)
        exact = load_vocoder(model, device)
    vocoder: AnyVocoder = exact
    begun = time.perf_counter()
    if device.type == "cuda":
        from vllm_cosyvoice.gpu.kernel_launch import compiling  # these need Triton
        from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

        vocoder = packed = PackedVocoder(exact, Gpu.of())
        with torch.inference_mode():
            if arguments.tune:
                return tune(packed)
            with compiling():
                packed.rehearse()
            packed.capture()
            if arguments.profile:
                return profile(packed)
    synchronize()
    print(f"vocoder on {device.type}: ready after {time.perf_counter() - begun:.1f} s")
    roofline = Roofline.here(model.config)
    report(lambda: calls(exact, vocoder, roofline, arguments.batch, arguments.tokens), arguments)


if __name__ == "__main__":
    main()
