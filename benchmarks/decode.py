"""Times the decode stage alone, flow and vocoder: speech tokens that are all there become audio.

    python -m benchmarks.decode [--model_dir DIR] [--json FILE]

Utterances of 10 s with a 5 s prompt; without a model directory, random weights of the released sizes.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import FRAMES_PER_TOKEN, MEL_BINS, SPEAKER_DIM, TOKEN_RATE
from vllm_cosyvoice.random_checkpoint import FULL, write_random_checkpoint
from vllm_cosyvoice.speech_decoder import DecodeStream, FlowPrompt, SpeechDecoder
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.voice import Voice

PROMPT, SPEECH = 125, 250  # tokens
ROUNDS = 5
FIRST_HOPS = (10, 15, 25)  # tokens


def a_voice() -> Voice:
    """Someone with a recording of 5 s."""
    random = np.random.default_rng(0)
    return Voice(
        transcript="",
        speech_tokens=random.integers(SPEECH_TOKENS, size=PROMPT, dtype=np.int32),
        mel=random.standard_normal((FRAMES_PER_TOKEN * PROMPT, MEL_BINS), np.float32),
        embedding=random.standard_normal(SPEAKER_DIM, np.float32),
        key="benchmark",
    )


def streams(decoder: SpeechDecoder, prompt: FlowPrompt, count: int, *, first_hop: int | None) -> list[DecodeStream]:
    """Utterances with all their tokens; `first_hop`: streamed with one of so many tokens."""
    random = np.random.default_rng(count)
    opened = []
    for _ in range(count):
        stream = decoder.open(prompt, streaming=first_hop is not None, first_hop=first_hop)
        stream.push(random.integers(SPEECH_TOKENS, size=SPEECH).tolist())
        stream.finish()
        opened.append(stream)
    return opened


def decode(decoder: SpeechDecoder, all_of: Sequence[DecodeStream]) -> list[float]:
    """Seconds until each call was done, the audio being on the host."""
    start, ends = time.perf_counter(), []
    while live := [stream for stream in all_of if not stream.done]:
        decoder.decode(live)
        ends.append(time.perf_counter() - start)
    return ends


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        model_dir = arguments.model_dir
        if model_dir is None:
            model_dir = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "full"
            write_random_checkpoint(model_dir, FULL, seed=0)
        start = time.perf_counter()
        decoder = SpeechDecoder(open_model(model_dir))
        print(f"ready after {time.perf_counter() - start:.1f} s")
    prompt = decoder.prompt(a_voice())
    figures = []
    for count in (1, 2, 4, 8, 16, 32, 64):
        for first_hop in (None, *FIRST_HOPS) if count in (1, 16) else (None,):
            rounds = [decode(decoder, streams(decoder, prompt, count, first_hop=first_hop)) for _ in range(ROUNDS + 1)]
            first, last = (float(np.median([ends[index] for ends in rounds[1:]])) for index in (0, -1))
            speed = count * SPEECH / TOKEN_RATE / last
            figures.append({"utterances": count, "first_hop": first_hop, "first_ms": 1000 * first,
                            "all_ms": 1000 * last, "audio_seconds_per_second": speed})  # fmt: skip
            how = "whole" if first_hop is None else f"first hop {first_hop:2}: {1000 * first:6.1f} ms"
            print(f"{count:3} utterances, {how:22} all {1000 * last:7.1f} ms, {speed:6.0f} a-s/s", flush=True)
    if torch.cuda.is_available():
        print(f"GPU memory {torch.cuda.max_memory_reserved() / 2**30:.2f} GiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
