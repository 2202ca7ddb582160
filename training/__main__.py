"""The command line of `python -m training`: one stage at a time, each going on from the files that it finds."""

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tools.random_checkpoint.tokenizer import write_tokenizer
from training import flow, tape, vocoder
from training.captured import Losses, captured
from training.corpus import SPEAKERS, Corpus, read_corpus, write_corpus
from training.discriminators import Discriminators
from training.export import export
from training.factors import COUNT, factor, fill
from training.fit import begin, copy_into, fit, save_whole, trained
from training.language_model import (
    Batches,
    LanguageModel,
    Utterance,
    new_language_model,
    trained_tensors,
    utterance,
)
from training.released import Parameters, Served, new_parameters
from training.sizes import SIZES, SPEAKER_CHANNELS, TOKENIZER_CHANNELS
from training.speaker_encoder import SpeakerEncoder
from training.speech_tokenizer import CONTENTS, COUNTS, SpeechTokenizer, speech_tokens
from vllm_cosyvoice.checkpoint import directory as files
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.checkpoint.tensors import read_tensors
from vllm_cosyvoice.config import DEMO_MODEL, FRAMES_PER_TOKEN, LLM_FILE, LOOKAHEAD_TOKENS, FlowConfig, ModelConfig
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.text.tokenizer import load_tokenizer

TEXTS, CORPUS, READING, EMBEDDING_FILE = "texts.json", "corpus.pt", "reading.pt", "embeddings.pt"
CONTENT_FILES = {CORPUS: "contents.pt", READING: "reading_contents.pt"}
TEXTS_AN_HOUR = 800  # one takes about 4.5 s
TOKENIZER_TOKENS, SPEAKER_TOKENS = (100, 64), (75, 128)  # tokens a crop, crops a batch
LANGUAGE_MODEL_TOKENS = 12_000  # a batch
FLOW_TOKENS = 12_000  # tokens a batch
VOCODER_ROWS = 32
TAPED = 0.5  # of the vocoder's batches: at another speed


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
    adversarial: float = 1.0  # share of the vocoder's time that is over when its discriminators come in

    def sentences(self) -> list[str]:
        """The texts."""
        sentences: list[str] = json.loads((self.out / TEXTS).read_text(encoding="utf-8"))
        return sentences

    def heard_texts(self) -> int:
        """How many of them are spoken for all networks."""
        return int(self.hours * TEXTS_AN_HOUR) + 1

    def corpus(self) -> Corpus:
        """The speech."""
        return read_corpus(self.out / CORPUS, self.device)

    def autocast(self) -> torch.autocast:
        """bfloat16, also on a CPU, so that what it does can be seen there."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def rows(self, count: float) -> int:
        """A batch's rows."""
        return max(2, round(count * self.scale))


def texts(run: Run) -> None:
    """Collect the texts and train the text tokenizer on them."""
    from training.texts import write_texts  # the front end, which the GPU machine lacks

    write_texts(run.out / TEXTS, run.texts)
    both = (form for sentence in run.sentences() for form in (sentence, " " + sentence))
    write_tokenizer(run.out / files.TOKENIZER, run.config.language_model, both)


def corpus(run: Run) -> None:
    """Speak the first texts, for all networks."""
    if not (run.out / CORPUS).exists():
        write_corpus(run.sentences()[: run.heard_texts()], run.out / CORPUS)


def reading(run: Run) -> None:
    """Speak the other texts, for the language model alone."""
    rest = run.sentences()[run.heard_texts() :]
    if rest and not (run.out / READING).exists():
        write_corpus(rest, run.out / READING, ("log_mel", "phones"), seed=1)


def speech_tokenizer(run: Run) -> None:
    """Train the speech tokenizer."""
    speech, network = run.corpus(), new_speech_tokenizer().to(run.device)
    tokens, rows = TOKENIZER_TOKENS

    def loss(_: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        starts = speech.draw(run.rows(rows), tokens)[1]
        with run.autocast():
            return network.loss(
                speech.crops("log_mel", starts, tokens).float(), speech.crops("phones", starts, tokens).long()
            )

    fit("speech_tokenizer", run.out, dict(network.named_parameters()), loss, minutes=run.minutes, rate=1e-3)


def contents(run: Run) -> None:
    """Tokenize what speech there is by now."""
    network = new_speech_tokenizer()
    copy_into(dict(network.named_parameters()), trained(run.out, "speech_tokenizer"))
    network.to(run.device)
    for speech_file, file in CONTENT_FILES.items():
        if not (run.out / speech_file).exists() or (run.out / file).exists():
            continue
        speech = read_corpus(run.out / speech_file, run.device)
        with torch.no_grad():
            made = torch.cat([network.contents(each.float()[None])[0] for each in speech.utterances("log_mel")])
        save_whole(made.short().cpu(), run.out / file)
        print(file, "in use:", int((made.bincount() > 0).sum()), "of", CONTENTS, flush=True)


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
        embeddings = [network(each.float()[None])[0] for each in speech.utterances("fbank")]
    save_whole(torch.stack(embeddings).cpu(), run.out / EMBEDDING_FILE)


def language_model(run: Run) -> None:
    """Train the language model."""
    parameters = new_language_model(run.config.language_model, run.device)
    network = LanguageModel(run.config.language_model, parameters)
    spoken: list[Utterance] = []
    for speech_file, file in CONTENT_FILES.items():
        if (run.out / file).exists():
            speech = read_corpus(run.out / speech_file, "cpu")
            said = torch.split(torch.load(run.out / file, weights_only=True), speech.starts.diff().tolist())
            spoken += map(utterance, speech.texts, said, speech.utterances("phones"), speech.speakers.tolist())
    batches = Batches(load_tokenizer(run.out / files.TOKENIZER), spoken, run.rows(LANGUAGE_MODEL_TOKENS))
    made = iter(DataLoader(batches, batch_size=None, num_workers=min(8, os.cpu_count() or 1), prefetch_factor=4))

    def loss(progress: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batches.progress.fill_(progress)
        batch = [each.to(run.device, non_blocking=True) for each in next(made)]
        with run.autocast():
            return network.loss(*batch)

    fit("language_model", run.out, parameters, loss, minutes=run.minutes, rate=2e-3)


class FlowBatches:
    """Batches for the flow and its encoder: the speech in tokens and as a mel."""

    def __init__(self, run: Run) -> None:
        self.run, self.speech = run, run.corpus()
        contents = torch.load(run.out / CONTENT_FILES[CORPUS], map_location=run.device, weights_only=True)
        self.contents = contents.long()
        self.embeddings = torch.load(run.out / EMBEDDING_FILE, map_location=run.device, weights_only=True)

    def draw(self, spoken: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens [rows, spoken + 3], mel [rows, 2 · spoken, 80] and speaker embeddings [rows, 192]."""
        device, speech = self.run.device, self.speech
        chosen, starts = speech.draw(self.run.rows(FLOW_TOKENS / spoken), spoken + LOOKAHEAD_TOKENS)
        places = torch.arange(spoken + LOOKAHEAD_TOKENS, device=device)
        first = torch.randint(0, COUNTS, (len(starts), 1), device=device)
        tokens = speech_tokens(self.contents[starts[:, None] + places], first)
        near = torch.randint_like(chosen, len(self.embeddings))  # another utterance of the same speaker, if it is one
        near = torch.where(speech.speakers[near] == speech.speakers[chosen], near, chosen)
        return tokens, speech.crops("mel", starts, spoken).float(), self.embeddings[near]


def train_flow_encoder(run: Run) -> None:
    """Train the encoder of a flow that takes up the demo model's, but has another encoder: it learns that one's mu."""
    if (run.out / "flow.pt").exists():
        print("the flow needs no new encoder, or has trained with it already", flush=True)
        return
    batches = FlowBatches(run)
    parameters, served = new_flow(run.config, run.device)
    model = open_model(DEMO_MODEL)
    teacher = Flow.from_state(model.config.flow, model.flow_state(), run.device)
    learning = {name: each for name, each in parameters.items() if name.startswith(flow.ENCODER)}
    copy_into(parameters, trained(run.out, "flow_start"))

    def compute(*tensors: torch.Tensor, streaming: bool) -> Losses:
        with run.autocast():
            return flow.encoder_loss(served, *tensors, streaming=streaming)

    compute_captured = captured(learning, compute)

    def loss(_: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        spoken, streaming, look_ahead, _ = flow.draw_case()
        tokens, mel = batches.draw(spoken)[:2]
        heard = torch.tensor(look_ahead, device=run.device)
        with torch.no_grad(), run.autocast():
            (taught,) = flow.means(teacher, tokens, heard, streaming)
        return reported(compute_captured(tokens, mel, taught.float(), heard, streaming=streaming))

    fit("flow_encoder", run.out, learning, loss, minutes=run.minutes, rate=1e-3)
    begin(run.out, "flow", parameters, run.minutes)


def train_flow(run: Run) -> None:
    """Train the flow."""
    batches = FlowBatches(run)
    parameters, served = new_flow(run.config, run.device)

    def compute(*tensors: torch.Tensor, streaming: bool) -> Losses:
        with run.autocast():
            return flow.loss(served, *tensors, streaming=streaming)

    compute_captured = captured(parameters, compute)

    def loss(_: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        spoken, streaming, look_ahead, prompt = flow.draw_case()
        given = torch.tensor([look_ahead, prompt], device=run.device)
        return reported(compute_captured(*batches.draw(spoken), given[0], given[1], streaming=streaming))

    fit("flow", run.out, parameters, loss, minutes=run.minutes, rate=1e-3)


def train_vocoder(run: Run) -> None:
    """Train the vocoder."""
    speech = run.corpus()
    parameters, served, discriminators = new_vocoder(run.config, run.device)
    torch.backends.cudnn.benchmark = True  # batches are all of one shape

    def crops() -> tuple[torch.Tensor, ...]:
        frames = FRAMES_PER_TOKEN * vocoder.CROP_TOKENS
        speed = random.choice(tape.SPEEDS) if random.random() < TAPED else 1.0
        tokens = vocoder.CROP_TOKENS if speed == 1.0 else -(-tape.frames_for(frames, speed) // FRAMES_PER_TOKEN)
        _, starts = speech.draw(run.rows(VOCODER_ROWS), tokens)
        audio, f0 = speech.crops("audio", starts, tokens).float() / 32768, speech.crops("f0", starts, tokens)
        if speed == 1.0:
            return speech.crops("mel", starts, tokens).float(), audio, f0
        return tape.play(audio, f0, speed, frames)

    compute = captured(parameters, partial(vocoder.loss, served, discriminators))

    def loss(progress: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return reported(compute(*crops(), adversarial=progress >= run.adversarial))

    fit("vocoder", run.out, parameters, loss, minutes=run.minutes, rate=5e-4)


def resume(run: Run) -> None:
    """Take up the demo model, as if each of its networks had trained for `minutes`. What they lacked then is new.

    A flow with an encoder of other sizes takes up all else, and `flow_encoder` has to run before `flow` can go on.
    """
    tokenizer, speakers = new_speech_tokenizer(), new_speaker_encoder()
    tokenizer.load(DEMO_MODEL / COSYVOICE2.speech_tokenizer)
    speakers.load(DEMO_MODEL / files.SPEAKER_ENCODER)
    language_parameters = new_language_model(run.config.language_model, "cpu")
    flow_parameters, vocoder_parameters = new_flow(run.config, "cpu")[0], new_vocoder(run.config, "cpu")[0]
    model = open_model(DEMO_MODEL)
    flow_state, same_flow = model.flow_state(), model.config.flow == run.config.flow
    if not same_flow:
        flow_state = {name: tensor for name, tensor in flow_state.items() if not name.startswith(flow.ENCODER)}
    fill(language_parameters, trained_tensors(read_tensors(DEMO_MODEL / LLM_FILE, meta=False)))
    fill(flow_parameters, flow_state)
    fill(vocoder_parameters, model.vocoder_state())
    networks: dict[str, Mapping[str, torch.Tensor]] = {
        "speech_tokenizer": dict(tokenizer.named_parameters()),
        "speaker_encoder": dict(speakers.named_parameters()),
        "language_model": language_parameters,
        "flow" if same_flow else "flow_start": flow_parameters,
        "vocoder": vocoder_parameters,
    }
    for name, parameters in networks.items():
        begin(run.out, name, parameters, run.minutes)
    shutil.copytree(DEMO_MODEL / files.TOKENIZER, run.out / files.TOKENIZER, dirs_exist_ok=True)


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
    assert isinstance(config.flow, FlowConfig)
    parameters = new_parameters(flow.layout(config.flow), device)
    parameters["input_embedding.weight"].data.normal_()
    factor(parameters, "input_embedding.weight")
    parameters["input_embedding.weight" + COUNT].data.zero_()  # a token's count says nothing of its sound
    for name in ("encoder_proj.bias", "decoder.estimator.final_proj.bias"):
        parameters[name].data.fill_(flow.MEAN_MEL)
    return parameters, flow.served(config.flow, parameters)


def new_vocoder(config: ModelConfig, device: torch.device | str) -> tuple[Parameters, Served, Discriminators]:
    """Untrained. The parameters are those of the vocoder, and those of its discriminators, which have a | in front."""
    parameters = new_parameters(vocoder.layout(config.vocoder), device)
    vocoder.start(parameters, config.vocoder)
    served, discriminators = vocoder.served(config.vocoder, parameters), Discriminators().to(device)
    against = {f"|{name}": parameter for name, parameter in discriminators.named_parameters()}
    return parameters | against, served, discriminators


def reported(losses: Losses) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What `fit` takes: the loss, and the parts to report."""
    return losses["loss"], {name: value.detach() for name, value in losses.items() if name != "loss"}


STAGES: dict[str, Callable[[Run], None]] = {
    "texts": texts,
    "resume": resume,
    "corpus": corpus,
    "reading": reading,
    "speech_tokenizer": speech_tokenizer,
    "contents": contents,
    "speaker_encoder": speaker_encoder,
    "language_model": language_model,
    "flow_encoder": train_flow_encoder,
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
    parser.add_argument("--hours", type=float, default=12.0, help="of speech for all networks")
    parser.add_argument("--texts", type=int, default=100_000, help="sentences to collect, words and phrases beside")
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches")
    parser.add_argument(
        "--adversarial",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of the vocoder's training without discriminators (default: all of it)",
    )
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
                arguments.adversarial,
            )
        )


if __name__ == "__main__":
    main()
