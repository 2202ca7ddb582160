"""The training speech with everything the networks hear of it, made in parallel, kept on the device as flat tensors.

flite speaks at 16 kHz, so the 24 kHz audio has nothing above 8 kHz, and neither will the model's.
"""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.fit import save_whole
from training.flite import PHONES, VOICED, Spoken, speak
from vllm_cosyvoice.config import FRAME_RATE, PROMPT_SAMPLE_RATE, SAMPLE_RATE, SAMPLES_PER_TOKEN, TOKEN_RATE
from vllm_cosyvoice.voice.audio import resample
from vllm_cosyvoice.voice.features import prompt_mel, speaker_fbank, whisper_log_mel

PRESETS = ("slt", "rms", "awb")
# Other people: the voices sped up or slowed down as a tape is, so pitch and formants move, but spoken that much slower
# or faster before, so the tempo stays. Half of the speech is the presets' own.
SHIFTS = (0.85, 0.925, 1.1, 1.2)
SPEAKERS = tuple((voice, 1.0) for voice in PRESETS) + tuple(
    (voice, shift) for voice in (*PRESETS, "kal16") for shift in SHIFTS
)
PRESET_SHARE = 0.5
HEARD_PER_TOKEN = PROMPT_SAMPLE_RATE // TOKEN_RATE  # samples
LONGEST = 18  # seconds; longer utterances are left out
PITCH_RANGE = (60, 420)  # Hz
PERIODIC = 0.4  # normalised autocorrelation of a frame with pitch
PER_TOKEN = {"audio": SAMPLES_PER_TOKEN, "mel": 2, "log_mel": 4, "fbank": 4, "phones": 2, "f0": 2}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Utterances end to end, each a whole number of tokens, those of a speaker side by side."""

    data: dict[str, Tensor]  # by the names of PER_TOKEN, so many rows a token
    starts: Tensor  # [utterances + 1], in tokens
    speakers: Tensor  # [utterances], index in SPEAKERS
    texts: list[str]

    def crops(self, what: str, starts: Tensor, tokens: int) -> Tensor:
        """[len(starts), tokens · PER_TOKEN, …] from the tokens `starts` on."""
        rows, data = PER_TOKEN[what], self.data[what]
        positions = rows * starts[:, None] + torch.arange(rows * tokens, device=data.device)
        return data[positions]

    def utterances(self, what: str) -> tuple[Tensor, ...]:
        """Each of them whole."""
        return torch.split(self.data[what], (PER_TOKEN[what] * self.starts.diff()).tolist())

    def draw(self, count: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Utterances [count] and tokens to start from [count], so that `tokens` of one speaker follow.

        Half start where an utterance does, as all speech does that is asked for.
        """
        last = torch.searchsorted(self.speakers, self.speakers, right=True)  # past the speaker's last utterance
        room = self.starts[last] - self.starts[:-1] - tokens  # of each utterance, to the speaker's end
        fits = (room >= 0).nonzero()[:, 0]
        if not len(fits):
            raise ValueError(f"no speaker has {tokens} tokens of speech: make a larger corpus")
        chosen = fits[torch.randint(len(fits), (count,), device=fits.device)]
        lengths = torch.minimum(self.starts[chosen + 1] - self.starts[chosen], room[chosen] + 1)
        moved = (torch.rand(count, device=fits.device) * lengths).long() * (torch.rand(count, device=fits.device) < 0.5)
        return chosen, self.starts[chosen] + moved


def write_corpus(texts: Sequence[str], path: Path, kept: Sequence[str] = tuple(PER_TOKEN), seed: int = 0) -> None:
    """Speak each of the texts, by speakers that `seed` decides, and keep the data named."""
    draw = random.Random(seed)
    jobs = [(text, _speaker(draw), kept) for text in texts]
    with ProcessPoolExecutor() as pool:
        made = [each for each in pool.map(_utterance, jobs, chunksize=16) if each is not None]
    made.sort(key=lambda utterance: utterance[1])
    lengths = [len(features["phones"]) // PER_TOKEN["phones"] for _, _, features in made]
    data = {name: torch.from_numpy(np.concatenate([features[name] for _, _, features in made])) for name in kept}
    saved = {
        "data": data,
        "starts": torch.tensor([0, *lengths]).cumsum(0),
        "speakers": torch.tensor([speaker for _, speaker, _ in made]),
        "texts": [text for text, _, _ in made],
    }
    save_whole(saved, path)
    print(f"{path.name}: {len(made)} utterances, {sum(lengths) / TOKEN_RATE / 3600:.2f} hours", flush=True)


def read_corpus(path: Path, device: torch.device | str) -> Corpus:
    """What `write_corpus` wrote."""
    saved = torch.load(path, weights_only=True, mmap=True)
    data = {name: tensor.to(device) for name, tensor in saved["data"].items()}
    return Corpus(data, saved["starts"].to(device), saved["speakers"].to(device), saved["texts"])


def recording(text: str, speaker: int) -> tuple[Spoken, Tensor]:
    """`text` by one of SPEAKERS: what flite said, and the samples at 16 kHz, a whole number of tokens."""
    voice, shift = SPEAKERS[speaker]
    spoken = speak(text, voice, slower=shift)
    heard = torch.from_numpy(spoken.samples)
    if shift != 1.0:
        heard = resample(heard, round(PROMPT_SAMPLE_RATE * shift), PROMPT_SAMPLE_RATE)
    missing = -len(heard) % HEARD_PER_TOKEN
    return spoken, torch.nn.functional.pad(heard, (0, missing))


def features(heard: Tensor) -> dict[str, Callable[[], Tensor]]:
    """How to make what the networks hear of 16 kHz samples, and the 24 kHz audio that they are to give back."""
    tokens = len(heard) // HEARD_PER_TOKEN

    @cache
    def audio() -> Tensor:
        return resample(heard, PROMPT_SAMPLE_RATE, SAMPLE_RATE)[: tokens * SAMPLES_PER_TOKEN]

    def fbank() -> Tensor:
        banks = speaker_fbank(heard)
        return torch.cat([banks, banks[-1:].expand(4 * tokens - len(banks), -1)]).half()

    return {
        "audio": lambda: (audio() * 32767).round().clamp(-32768, 32767).short(),
        "mel": lambda: prompt_mel(audio()).half(),
        "log_mel": lambda: whisper_log_mel(heard).T.half(),
        "fbank": fbank,
    }


def pitch(heard: Tensor, frames: int) -> Tensor:
    """Hz of each 20 ms frame by autocorrelation of 50 ms, 0 where there is none: the pitch predictor's teacher."""
    hop, window = PROMPT_SAMPLE_RATE // FRAME_RATE, 800
    padded = torch.nn.functional.pad(heard, ((window - hop) // 2, window))
    pieces = padded.unfold(0, window, hop)[:frames]
    pieces = pieces - pieces.mean(1, keepdim=True)
    power = torch.fft.rfft(pieces, 2 * window).abs().square()
    correlation = torch.fft.irfft(power)[:, :window]
    taper = 1 - torch.arange(window) / window
    normal = correlation / (correlation[:, :1] + 1e-6) / taper
    shortest, longest = (PROMPT_SAMPLE_RATE // bound for bound in reversed(PITCH_RANGE))
    normal = normal[:, : longest + 1].clone()
    normal[:, :shortest] = -1
    best = normal.max(1, keepdim=True).values
    # The first lag about as good as the best is the period; later ones are its multiples.
    lag = (normal > 0.85 * best).float().argmax(1)
    near = normal.gather(1, (lag[:, None] + torch.arange(-3, 4)).clamp(shortest, longest)).argmax(1) - 3
    lag = (lag + near).clamp(shortest, longest)
    return torch.where(best[:, 0] > PERIODIC, PROMPT_SAMPLE_RATE / lag, 0.0)


def _speaker(draw: random.Random) -> int:
    if draw.random() < PRESET_SHARE:
        return draw.randrange(len(PRESETS))
    return draw.randrange(len(PRESETS), len(SPEAKERS))


def _utterance(job: tuple[str, int, Sequence[str]]) -> tuple[str, int, dict[str, np.ndarray]] | None:
    torch.set_num_threads(1)
    text, speaker, kept = job
    spoken, heard = recording(text, speaker)
    tokens = len(heard) // HEARD_PER_TOKEN
    if not TOKEN_RATE // 2 <= tokens <= LONGEST * TOKEN_RATE:
        return None
    frames = PER_TOKEN["phones"] * tokens
    ends = np.array([end for _, end in spoken.phones]) / SPEAKERS[speaker][1]
    names = np.array([phone for phone, _ in spoken.phones])
    middles = (np.arange(frames) + 0.5) / FRAME_RATE
    phones = torch.from_numpy(names[np.searchsorted(ends, middles).clip(max=len(ends) - 1)])
    voiced = torch.tensor([name in VOICED for name in PHONES])[phones]
    made = features(heard) | {"phones": lambda: phones.to(torch.int8), "f0": lambda: pitch(heard, frames) * voiced}
    # As arrays: tensors would travel between processes through open files, of which there may not be so many.
    return text, speaker, {name: made[name]().numpy() for name in kept}
