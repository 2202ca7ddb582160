"""Does the language model say the phones? Without flow and vocoder, in seconds, while they are still being trained.

    python -m training.phone_errors --out DIR [--size demo]

Draws speech tokens for the held-out sentences by the engine's own rules, without a prompt and with each preset voice's,
takes the likeliest phones of each token, and counts the phones to insert, drop and replace to get flite's. The first
line says the same of the tokens that flite's speech becomes: what the best language model would get.
"""

import argparse
import json
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.corpus import PRESETS, recording
from training.fit import copy_into, trained
from training.flite import PHONES, speak
from training.language_model import SHARPNESS, LanguageModel, new_language_model, text_ids
from training.sentences import HELD_OUT, VOICE_TRANSCRIPT
from training.sizes import SIZES, TOKENIZER_CHANNELS
from training.speech_tokenizer import CONTENTS, SpeechTokenizer, speech_tokens
from vllm_cosyvoice.checkpoint.directory import TOKENIZER
from vllm_cosyvoice.llm.token_draw import NOTHING, RECORD, WINDOW, WORDS, draw
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.vocabulary import END_OF_SPEECH
from vllm_cosyvoice.voice.features import whisper_log_mel

Encode = Callable[[str], list[int]]


def edits(wanted: Sequence[Hashable], got: Sequence[Hashable]) -> int:
    """The fewest items to insert, drop and replace that turn `got` into `wanted`."""
    costs = list(range(len(got) + 1))
    for row, item in enumerate(wanted, start=1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(got, start=1):
            best = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (item != other))
            diagonal, costs[column] = costs[column], best
    return costs[-1]


@torch.no_grad()
def generate(network: LanguageModel, segments: Sequence[Segment], seed: int = 0) -> list[list[int]]:
    """Speech tokens for each segment, END_OF_SPEECH at the end of those that came to one."""
    device = next(iter(network.parameters.values())).device
    records = np.zeros(len(segments), RECORD)
    records["recent"], records["window"] = NOTHING, WINDOW
    for option in ("temperature", "top_p", "top_k"):
        records[option] = getattr(SamplingOptions, option)
    records["seed"] = seed + np.arange(len(segments))
    words = torch.from_numpy(records.view(np.int32).reshape(len(segments), WORDS))
    # Padded on the left: only distances count, so a row need not start at zero.
    longest = max(len(segment.prompt) for segment in segments)
    ids = torch.tensor([[0] * (longest - len(segment.prompt)) + segment.prompt for segment in segments])
    heard = torch.tensor([[0] * (longest - len(s.prompt)) + [1] * len(s.prompt) for s in segments])
    said: list[list[int]] = [[] for _ in segments]
    cache: object = None
    for position in range(max(segment.max_tokens for segment in segments)):
        hidden, cache = network.hidden(
            ids.to(device), attention_mask=heard.to(device), past_key_values=cache, use_cache=True
        )
        logits = SHARPNESS * network.logits(hidden[:, -1]).float().cpu()
        for row, segment in enumerate(segments):
            if position < segment.min_tokens:
                logits[row, END_OF_SPEECH] = -torch.inf
        places = torch.tensor([[row, row, position] for row in range(len(segments))], dtype=torch.int32)
        draw(logits, words, places)
        ids = logits.argmax(1, keepdim=True)
        heard = torch.cat([heard, torch.ones_like(ids)], dim=1)
        for tokens, segment, token in zip(said, segments, ids[:, 0].tolist(), strict=True):
            if len(tokens) < segment.max_tokens and END_OF_SPEECH not in tokens:
                tokens.append(token)
        if all(END_OF_SPEECH in tokens for tokens in said):
            break
    return said


def collapsed(phones: Sequence[int]) -> list[str]:
    """The phones in their order, pauses left out."""
    return [PHONES[phone] for phone, _ in groupby(phones) if PHONES[phone] != "pau"]


def lasting(phones: Sequence[int]) -> list[int]:
    """`phones` of 20 ms less those that stand alone: between two phones the tokenizer often guesses a third."""
    runs = [list(run) for _, run in groupby(phones)]
    return [phone for run in runs if len(run) > 1 for phone in run]


class Judge:
    """Counts phone errors with a speech tokenizer's own guesses."""

    def __init__(self, tokenizer: SpeechTokenizer) -> None:
        self.tokenizer = tokenizer.cpu().eval()
        self.spoken = [speak(text, PRESETS[0]) for text in HELD_OUT]
        self.wanted = [collapsed([phone for phone, _ in spoken.phones]) for spoken in self.spoken]

    @torch.no_grad()
    def contents(self, heard: Tensor) -> Tensor:
        """Contents [n] of 16 kHz samples."""
        return self.tokenizer.contents(whisper_log_mel(heard).T[None])[0]

    def judge(self, name: str, said: Sequence[Sequence[int]], durations: Sequence[int]) -> dict[str, object]:
        """One line about `said`, speech tokens of each held-out sentence, where flite takes `durations` tokens."""
        errors = ended = 0
        ratios = []
        for tokens, wanted, duration in zip(said, self.wanted, durations, strict=True):
            made = torch.tensor([token for token in tokens if token < END_OF_SPEECH], dtype=torch.long)
            phones = self.tokenizer.spoken_phones(made % CONTENTS).flatten().tolist()
            errors += edits(wanted, collapsed(lasting(phones)))
            ended += END_OF_SPEECH in tokens
            ratios.append(len(made) / duration)
        return {
            "mode": name,
            "phone_error_rate": round(errors / sum(map(len, self.wanted)), 4),
            "ended": ended,
            "length": [round(float(each), 2) for each in (min(ratios), np.median(ratios), max(ratios))],
        }


def report(network: LanguageModel, tokenizer: SpeechTokenizer, encode: Encode) -> list[dict[str, object]]:
    """One line for flite's own tokens and one for each way to be asked; `length` is in flite's lengths."""
    judge = Judge(tokenizer)
    lines = []
    for speaker, voice in enumerate(PRESETS):
        teacher = [judge.contents(recording(text, speaker)[1]) for text in HELD_OUT]
        durations = [len(contents) for contents in teacher]
        lines.append(judge.judge(f"flite {voice}", [[*each.tolist(), END_OF_SPEECH] for each in teacher], durations))
        prompt = speech_tokens(judge.contents(recording(VOICE_TRANSCRIPT, speaker)[1])).tolist()
        prompted = [Segment.of(encode(text), encode(VOICE_TRANSCRIPT), prompt) for text in HELD_OUT]
        lines.append(judge.judge(f"prompted by {voice}", generate(network, prompted), durations))
    lines.append(judge.judge("bare", generate(network, [Segment.of(encode(text)) for text in HELD_OUT]), durations))
    return lines


def main() -> None:
    """Judge the language model in DIR, finished or not."""
    parser = argparse.ArgumentParser(prog="python -m training.phone_errors", description="Judge the language model.")
    parser.add_argument("--out", type=Path, required=True, help="where the stages left their files")
    parser.add_argument("--size", choices=SIZES, default="demo")
    arguments = parser.parse_args()
    out: Path = arguments.out
    speech_tokenizer = SpeechTokenizer(TOKENIZER_CHANNELS)
    copy_into(dict(speech_tokenizer.named_parameters()), trained(out, "speech_tokenizer"))
    config = SIZES[arguments.size].language_model
    parameters = new_language_model(config, "cuda" if torch.cuda.is_available() else "cpu")
    copy_into(parameters, trained(out, "language_model"))
    encode = partial(text_ids, load_tokenizer(out / TOKENIZER))
    for line in report(LanguageModel(config, parameters), speech_tokenizer, encode):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
