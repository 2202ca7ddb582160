"""The command line of `python -m training`: one stage at a time, each going on from the files that it finds."""

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training import flow, vocoder
from training.corpus import SPEAKERS, Corpus, read_corpus, write_corpus
from training.export import export
from training.factors import add_factors, merged
from training.fit import copy_into, fit, trained
from training.language_model import Batches, LanguageModel, new_language_model
from training.released import Parameters, Served, new_parameters
from training.sizes import SIZES, SPEAKER_CHANNELS, TOKENIZER_CHANNELS
from training.speaker_encoder import SpeakerEncoder
from training.speech_tokenizer import CONTENTS, SpeechTokenizer, speech_tokens
from vllm_cosyvoice.checkpoint.directory import TOKENIZER
from vllm_cosyvoice.config import LOOKAHEAD_TOKENS, ModelConfig
from vllm_cosyvoice.flow.loading import flow_weights
from vllm_cosyvoice.random_checkpoint.tokenizer import write_tokenizer
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.token_draw import WINDOW

TEXTS, CORPUS, CONTENT_FILE, EMBEDDING_FILE = "texts.json", "corpus.pt", "contents.pt", "embeddings.pt"
TOKENIZER_TOKENS, SPEAKER_TOKENS = (100, 64), (75, 128)  # tokens a crop, crops a batch
FLOW_TOKENS = 12_000  # tokens a batch
VOCODER_ROWS = 32


@dataclass(frozen=True)
class Run:
    """What every stage is given."""

    out: Path
    config: ModelConfig
    device: torch.device
    minutes: float
    hours: float
    texts: int
    scale: float  # of the batches

    def corpus(self) -> Corpus:
        """The speech."""
        return read_corpus(self.out / CORPUS, self.device)

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def rows(self, count: float) -> int:
        """A batch's rows."""
        return max(2, round(count * self.scale))


def texts(run: Run) -> None:
    """Collect the texts and train the text tokenizer on them."""
    import json

    from training.texts import write_texts  # the front end, which the GPU machine lacks

    write_texts(run.out / TEXTS, run.texts)
    sentences = json.loads((run.out / TEXTS).read_text(encoding="utf-8"))
    both = (form for sentence in sentences for form in (sentence, " " + sentence))
    write_tokenizer(run.out / TOKENIZER, run.config.language_model, both)


def corpus(run: Run) -> None:
    """Speak the texts."""
    if not (run.out / CORPUS).exists():
        write_corpus(run.out / TEXTS, run.out / CORPUS, run.hours)


def speech_tokenizer(run: Run) -> None:
    """Train the speech tokenizer, then tokenize the corpus."""
    speech, network = run.corpus(), new_speech_tokenizer().to(run.device)
    tokens, rows = TOKENIZER_TOKENS

    def loss(progress: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        del progress
        _, starts = speech.draw(run.rows(rows), tokens)
        with run.autocast():
            return network.loss(
                speech.crops("log_mel", starts, tokens).float(), speech.crops("phones", starts, tokens).long()
            )

    fit("speech_tokenizer", run.out, dict(network.named_parameters()), loss, minutes=run.minutes, rate=1e-3)
    network.eval()
    with torch.no_grad():
        contents = [
            network.contents(speech.utterance("log_mel", index).float()[None])[0].short()
            for index in range(len(speech.texts))
        ]
    torch.save(contents, run.out / CONTENT_FILE)
    everything = torch.cat(contents).long()
    print("contents in use:", int((everything.bincount() > 0).sum()), "of", CONTENTS)
    print("drawn anew, at least:", round(float(repeated(everything)), 4), "of tokens", flush=True)


def repeated(contents: torch.Tensor) -> torch.Tensor:
    """Share of the tokens that are among the ten before them, which repetition-aware sampling would not take."""
    tokens = speech_tokens(contents)
    windows = tokens.unfold(0, WINDOW + 1, 1)
    return (windows[:, :-1] == windows[:, -1:]).any(1).float().mean()


def speaker_encoder(run: Run) -> None:
    """Train the speaker encoder, then embed the corpus."""
    speech, network = run.corpus(), new_speaker_encoder().to(run.device)
    most, rows = SPEAKER_TOKENS

    def loss(_: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        tokens = random.randint(most // 3, most)
        chosen, starts = speech.draw(run.rows(rows), tokens)
        return network.loss(speech.crops("fbank", starts, tokens).float(), speech.speakers[chosen])

    fit("speaker_encoder", run.out, dict(network.named_parameters()), loss, minutes=run.minutes, rate=1e-3)
    with torch.no_grad():
        embeddings = [network(speech.utterance("fbank", index).float()[None])[0] for index in range(len(speech.texts))]
    torch.save(torch.stack(embeddings).cpu(), run.out / EMBEDDING_FILE)


def language_model(run: Run) -> None:
    """Train the language model."""
    speech = run.corpus()
    parameters = new_language_model(run.config.language_model, run.device)
    network = LanguageModel(run.config.language_model, parameters)
    contents = [each.long() for each in torch.load(run.out / CONTENT_FILE, map_location="cpu", weights_only=True)]
    batches = Batches(load_tokenizer(run.out / TOKENIZER), speech.texts, contents, speech.speakers.tolist())

    def loss(_: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        ids, targets = batches.next(run.rows(64))
        with run.autocast():
            return network.loss(ids.to(run.device), targets.to(run.device))

    fit("language_model", run.out, parameters, loss, minutes=run.minutes, rate=1e-3)


def train_flow(run: Run) -> None:
    """Train the flow."""
    speech = run.corpus()
    contents = torch.cat(torch.load(run.out / CONTENT_FILE, map_location=run.device, weights_only=True)).long()
    embeddings = torch.load(run.out / EMBEDDING_FILE, map_location=run.device, weights_only=True)
    parameters, served = new_flow(run.config, run.device)

    def loss(_: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        spoken, streaming, look_ahead, prompt = flow.draw_case()
        chosen, starts = speech.draw(run.rows(FLOW_TOKENS / spoken), spoken + LOOKAHEAD_TOKENS)
        places = torch.arange(spoken + LOOKAHEAD_TOKENS, device=run.device)
        first = torch.randint(0, 9, (len(starts), 1), device=run.device)
        tokens = speech_tokens(contents[starts[:, None] + places], first)
        near = torch.randint_like(chosen, len(embeddings))  # another utterance of the same speaker, if it is one
        near = torch.where(speech.speakers[near] == speech.speakers[chosen], near, chosen)
        mel = speech.crops("mel", starts, spoken).float()
        with run.autocast():
            return flow.loss(
                served, tokens, mel, embeddings[near], streaming=streaming, look_ahead=look_ahead, prompt=prompt
            )

    fit("flow", run.out, parameters, loss, minutes=run.minutes, rate=1e-3)


def train_vocoder(run: Run) -> None:
    """Train the vocoder."""
    speech = run.corpus()
    parameters, served = new_vocoder(run.config, run.device)
    adversary = vocoder.Adversary(run.device)

    def loss(progress: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        _, starts = speech.draw(run.rows(VOCODER_ROWS), vocoder.CROP_TOKENS)
        mel, audio, f0 = (speech.crops(what, starts, vocoder.CROP_TOKENS) for what in ("mel", "audio", "f0"))
        return vocoder.loss(served, mel.float(), audio.float() / 32768, f0, progress, adversary)

    fit("vocoder", run.out, parameters, loss, minutes=run.minutes, rate=5e-4)


def write_model(run: Run) -> None:
    """The model directory, in `model` under the output."""
    tokenizer, speakers = new_speech_tokenizer(), new_speaker_encoder()
    for network, name in ((tokenizer, "speech_tokenizer"), (speakers, "speaker_encoder")):
        copy_into(dict(network.named_parameters()), trained(run.out, name))
    export(run.out, run.out / "model", run.config, tokenizer, speakers)


def new_speech_tokenizer() -> SpeechTokenizer:
    """Untrained."""
    return SpeechTokenizer(TOKENIZER_CHANNELS)


def new_speaker_encoder() -> SpeakerEncoder:
    """Untrained."""
    return SpeakerEncoder(SPEAKER_CHANNELS, len(SPEAKERS))


def new_flow(config: ModelConfig, device: torch.device | str) -> tuple[Parameters, Served]:
    """Untrained."""
    parameters = new_parameters(flow.layout(config.flow), device)
    add_factors(parameters, "input_embedding.weight", 1.0)
    served = flow.served(config.flow, parameters)
    served.weights = lambda tensors: flow_weights(merged(tensors))
    return parameters, served


def new_vocoder(config: ModelConfig, device: torch.device | str) -> tuple[Parameters, Served]:
    """Untrained."""
    parameters = new_parameters(vocoder.layout(config.vocoder), device)
    vocoder.start(parameters, config.vocoder)
    return parameters, vocoder.served(config.vocoder, parameters)


STAGES: dict[str, Callable[[Run], None]] = {
    "texts": texts,
    "corpus": corpus,
    "speech_tokenizer": speech_tokenizer,
    "speaker_encoder": speaker_encoder,
    "language_model": language_model,
    "flow": train_flow,
    "vocoder": train_vocoder,
    "export": write_model,
}


def main() -> None:
    """Run stages."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the demo model.")
    parser.add_argument("--stage", nargs="+", choices=STAGES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where stages leave their files and find the others'")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training in all, earlier calls' included")
    parser.add_argument("--hours", type=float, default=12.0, help="of speech to make")
    parser.add_argument("--texts", type=int, default=12_000, help="texts to collect")
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: this is for trying the recipe out", file=sys.stderr)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stage:
        print(f"--- {stage}", flush=True)
        STAGES[stage](
            Run(
                arguments.out,
                SIZES[arguments.size],
                device,
                arguments.minutes,
                arguments.hours,
                arguments.texts,
                arguments.scale,
            )
        )


if __name__ == "__main__":
    main()
