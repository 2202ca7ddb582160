"""Times whole flow solves at the released size with random weights, and compares them with float32.

python -m benchmarks.flow_solve [--json FILE]
"""

import argparse
import json
import time
from pathlib import Path

import torch
from triton.testing import do_bench

from vllm_cosyvoice.config import FRAME_RATE, FRAMES_PER_TOKEN, FlowConfig
from vllm_cosyvoice.flow import Flow, FlowRow
from vllm_cosyvoice.flow.packed import PackedFlow
from vllm_cosyvoice.random_checkpoint.weights import flow_weights

PROMPT = 125  # tokens: 5 s
PEAK = 790e12  # FLOP/s, measured with large bf16 products on an H200
CASES = [(1, 25, True), (1, 50, True), (1, 250, False), (1, 250, True), (8, 25, True), (2, 250, False), (4, 250, False),
         (8, 250, False), (8, 250, True), (16, 250, False), (20, 250, False), (20, 250, True)]  # fmt: skip


def rows_of(flow: Flow, count: int, speech: int, streaming: bool) -> list[FlowRow]:
    """Rows of a 5 s prompt and `speech` new tokens."""
    generator = torch.Generator().manual_seed(0)
    device = flow.noise.device
    mel = torch.randn(FRAMES_PER_TOKEN * PROMPT, 80, generator=generator).to(device)
    speaker = flow.speaker(torch.randn(192, generator=generator).to(device))
    tokens = torch.randint(6561, (count, PROMPT + speech), generator=generator).tolist()
    return [FlowRow(ids, 0, mel, speaker, streaming) for ids in tokens]


def operations(rows: list[FlowRow]) -> float:
    """Floating-point operations of the estimator's products (performance figures of the model's arithmetic)."""
    total = 0.0
    for row in rows:
        frames = FRAMES_PER_TOKEN * row.spoken
        seen = frames * (frames + 50) / 2 if row.streaming else frames * frames
        total += 20 * (132.5e6 * frames + 114_688 * seen)
    return total


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = FlowConfig()
    eager = Flow.from_state(config, flow_weights(config, 0), "cuda")
    packed = PackedFlow(eager)
    before = torch.cuda.memory_reserved()
    start = time.perf_counter()
    packed.capture()
    torch.cuda.synchronize()
    print(f"capture {time.perf_counter() - start:.1f} s, {(torch.cuda.memory_reserved() - before) / 2**20:.0f} MiB")
    figures = []
    for count, speech, streaming in CASES:
        rows = rows_of(eager, count, speech, streaming)
        mels = packed(rows)
        error = 0.0
        if count <= 8:
            exact = eager(rows)
            error = max(float((a - b).norm() / b.norm()) for a, b in zip(mels, exact, strict=True))
        ms = do_bench(lambda rows=rows: packed(rows), warmup=20, rep=150, return_mode="median")
        size = packed._graphs.size_for(sum(FRAMES_PER_TOKEN * row.spoken for row in rows))
        graph = do_bench(lambda size=size: packed._graphs.replay(size), warmup=20, rep=150, return_mode="median")
        seconds = count * speech * FRAMES_PER_TOKEN / FRAME_RATE
        figures.append({"rows": count, "tokens": speech, "streaming": streaming, "ms": ms, "graph_ms": graph,
                        "audio_seconds_per_second": 1000 * seconds / ms, "mel_error": error,
                        "of_roofline": operations(rows) / PEAK / ms * 1000})  # fmt: skip
        print("rows {rows:3} x {tokens:3} tokens, streaming {streaming:1}: {ms:7.2f} ms (graph {graph_ms:7.2f}), "
              "{audio_seconds_per_second:6.0f} a-s/s, {of_roofline:4.0%} of the roofline, "
              "mel error {mel_error:.2%}".format(**figures[-1]), flush=True)  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
