"""Times whole flow solves, and compares solves in a narrower dtype with float32.

    python -m benchmarks.flow_solve [--model_dir DIR | --family cosyvoice3] [--batch 1 8 …] [--tokens 25 250]

Rows have a 5 s prompt; each case is solved with full attention ("whole") and with the chunk mask ("streaming").
"""

import time
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.measurement import Measurement, milliseconds, parser, report, synchronize
from benchmarks.model import model_directory
from benchmarks.roofline import Roofline
from vllm_cosyvoice.checkpoint import ModelDirectory, open_model
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, SPEAKER_DIM, TOKEN_RATE
from vllm_cosyvoice.flow import FlowRow
from vllm_cosyvoice.flow.backend import AnyFlow, open_flow

PROMPT = 125  # tokens
MOST_COMPARED = 8  # rows, as float32 needs matrices of all pairs of frames


def rows_of(flow: AnyFlow, count: int, speech: int, *, streaming: bool) -> list[FlowRow]:
    """Create `count` rows with a 5 s prompt and `speech` new tokens."""
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(FRAMES_PER_TOKEN * PROMPT, MEL_BINS, generator=generator)
    speaker = flow.speaker(torch.randn(SPEAKER_DIM, generator=generator))
    mel = mel.to(speaker.device)
    tokens = torch.randint(6561, (count, PROMPT + speech), generator=generator).tolist()
    return [FlowRow(ids, 0, mel, speaker, streaming) for ids in tokens]


def capture(flow: AnyFlow) -> None:
    """Compile and capture `flow` for calls of all sizes."""
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow  # these need Triton
    from vllm_cosyvoice.gpu.kernel_launch import compiling

    if isinstance(flow, PackedFlow):
        with compiling():
            flow.rehearse()
        flow.capture()
        while flow.capture_next():
            pass


def solves(
    model: ModelDirectory, exact: AnyFlow, flow: AnyFlow, batch: list[int], tokens: list[int]
) -> Iterator[Measurement]:
    """Measure every case once."""
    roofline = Roofline.here(model.config)
    for count in batch:
        for speech in tokens:
            for streaming in (False, True):
                rows = rows_of(exact, count, speech, streaming=streaming)
                ms, host = milliseconds(partial(flow, rows))
                notes = "" if flow is exact else f"host {host:.2f} ms"
                if flow is not exact and count <= MOST_COMPARED:
                    pairs = zip(flow(rows), exact(rows), strict=True)
                    error = max(float((mel - right).norm() / right.norm()) for mel, right in pairs)
                    notes += f", mel error {error:.2%}"
                attainable = roofline.flow([FRAMES_PER_TOKEN * row.spoken for row in rows], chunk_mask=streaming)
                case = f"{count} × {speech} tokens, {'streaming' if streaming else 'whole'}"
                yield Measurement("flow", case, ms, count * speech / TOKEN_RATE, attainable, notes)


def main() -> None:
    """Print a table."""
    arguments = parser(__doc__).parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with model_directory(arguments) as directory:
        model = open_model(directory)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        exact = open_flow(model, device, torch.float32, load_trt=False)
        begun = time.perf_counter()
        flow = exact
        if device.type == "cuda":
            flow = open_flow(model, device, torch.bfloat16, load_trt=False)
            capture(flow)
        synchronize()
        print(f"flow on {device.type}: ready after {time.perf_counter() - begun:.1f} s")
        report(lambda: solves(model, exact, flow, arguments.batch, arguments.tokens), arguments)


if __name__ == "__main__":
    main()
