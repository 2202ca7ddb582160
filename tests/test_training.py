"""What a user of the training recipe relies on, at toy size."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tools.random_checkpoint.tokenizer import write_tokenizer
from training import flow, tape, texts, vocoder
from training.__main__ import (
    Run,
    new_flow,
    new_speaker_encoder,
    new_speech_tokenizer,
    new_vocoder,
    resume,
    train_flow_encoder,
)
from training.compare_masks import interval
from training.corpus import PER_TOKEN
from training.discriminators import Discriminators
from training.evaluate import word_errors
from training.export import export
from training.factors import MADE, fill, log_probability, merged
from training.fit import Loss, fit, save_whole, trained
from training.flite import PHONES
from training.language_model import (
    PHONES_AHEAD,
    Batches,
    LanguageModel,
    Utterance,
    file_tensors,
    new_language_model,
    utterance,
)
from training.phone_errors import collapsed, edits, generate, lasting
from training.sequences import IGNORED, streamed, whole
from training.sizes import DEMO, TOY
from training.speaker_encoder import SpeakerEncoder
from training.speech_tokenizer import CONTENTS, COUNTS, SpeechTokenizer, speech_tokens
from training.texts import TEMPLATES, by_beginning, by_grammar
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.checkpoint.directory import TOKENIZER
from vllm_cosyvoice.checkpoint.layout import flow_layout, language_model_layout, vocoder_layout
from vllm_cosyvoice.checkpoint.tensors import read_tensors
from vllm_cosyvoice.config import CHUNK_TOKENS, DEMO_MODEL, MEL_BINS, SAMPLE_RATE, SAMPLES_PER_FRAME, FlowConfig
from vllm_cosyvoice.flow.cuda.kernel_sizes import misfits
from vllm_cosyvoice.flow.row import FlowRow
from vllm_cosyvoice.flow.torch.flow import Flow
from vllm_cosyvoice.llm.text_stream import TextStream
from vllm_cosyvoice.llm.token_draw import WINDOW
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, SPEECH_TOKENS
from vllm_cosyvoice.vocoder import Vocoder, VocoderRow
from vllm_cosyvoice.voice.features import prompt_mel

TEXT, PROMPT_TEXT = list(range(100, 112)), list(range(40, 47))
SPEECH, PROMPT_SPEECH = list(range(1000, 1070)), list(range(3000, 3037))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)


@pytest.mark.parametrize("prompt", [((), ()), (PROMPT_TEXT, PROMPT_SPEECH)])
def test_the_language_model_is_trained_on_what_the_engine_submits(prompt: tuple[list[int], list[int]]) -> None:
    example = whole(TEXT, SPEECH, *prompt)
    assert example.ids == [*Segment.of(TEXT, *prompt).prompt, *SPEECH]
    assert example.targets[-len(SPEECH) - 1 :] == [*SPEECH, END_OF_SPEECH]


@pytest.mark.parametrize("prompt", [((), ()), (PROMPT_TEXT, PROMPT_SPEECH)])
def test_a_streamed_example_is_what_a_text_stream_reads_when_the_model_says_it(
    prompt: tuple[list[int], list[int]],
) -> None:
    example = streamed(TEXT, SPEECH, *prompt)
    stream, left = TextStream(*prompt), list(SPEECH)
    for start in range(0, len(TEXT), 5):
        stream.add(TEXT[start : start + 5])
        if turn := stream.turn():
            assert turn.max_tokens is not None
            said = [example.targets[len(turn.prompt) - 1 + index] for index in range(turn.max_tokens)]
            assert turn.prompt == example.ids[: len(turn.prompt)]
            assert said == left[: turn.max_tokens]
            stream.spoke(said)
            del left[: turn.max_tokens]
    stream.end()
    turn = stream.turn()
    assert turn is not None
    assert example.ids == [*turn.prompt, *left]
    assert [target for target in example.targets if target != IGNORED] == [*SPEECH, END_OF_SPEECH]


def test_parameters_have_the_released_names_and_the_demo_fits_into_55_megabytes() -> None:
    networks = (
        file_tensors(new_language_model(DEMO.language_model, "meta")),
        flow.file_tensors(new_flow(DEMO, "cpu")[0]),
        merged(new_vocoder(DEMO, "cpu")[0]),
    )
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in networks]
    layouts = language_model_layout(DEMO.language_model), flow_layout(DEMO.flow), vocoder_layout(DEMO.vocoder)
    assert shapes == list(layouts)
    once = {id(tensor): tensor.numel() for tensors in networks for tensor in tensors.values()}
    assert 2 * sum(once.values()) < 51.5e6  # the ONNX files and the text tokenizer take under 4 MB
    assert isinstance(DEMO.flow, FlowConfig)
    assert not misfits(DEMO.flow)  # so the fused kernels serve it


@pytest.mark.parametrize("streaming", [False, True])
def test_the_flow_is_trained_with_the_masks_and_the_arithmetic_that_serve(
    streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The velocities of a training batch, integrated as the solver does, are the served mel."""
    parameters, served = new_flow(TOY, "cpu")
    spoken, prompt = 2 * CHUNK_TOKENS, 20
    tokens = torch.randint(SPEECH_TOKENS, (1, spoken + 3))
    mel, speaker = torch.randn(1, 2 * spoken, 80), torch.randn(1, 192)
    state = {name: tensor.detach() for name, tensor in flow.file_tensors(parameters).items()}
    serving = Flow.from_state(TOY.flow, state)
    row = FlowRow(tokens[0].tolist(), 3, mel[0, :prompt], serving.speaker(speaker[0]), streaming)
    expected = serving([row])[0]

    x, at = serving.noise[None, : 2 * spoken], 0.0
    for size in serving.step_sizes:
        with monkeypatch.context() as patched, torch.no_grad():
            # Training mixes noise and mel at a random time; here the mix is to be x, and the time the solver's.
            patched.setattr(torch, "rand", lambda *_, at=at, **__: torch.full((1,), np.arccos(1 - at) * 2 / np.pi))
            patched.setattr(torch, "randn_like", lambda _, at=at, x=x: (x - at * mel) / (1 - at))
            guided, free, *_ = served(
                flow.velocities, tokens, mel, speaker, torch.tensor(3), torch.tensor(prompt), streaming
            )
        x, at = x + size * torch.lerp(free, guided, 1 + serving.guidance), at + size
    torch.testing.assert_close(x[0, prompt:], expected, rtol=1e-3, atol=1e-3)


def test_the_vocoder_is_trained_as_it_serves() -> None:
    parameters, served, _ = new_vocoder(TOY, "cpu")
    serving = Vocoder.from_state(TOY.vocoder, {name: tensor.detach() for name, tensor in merged(parameters).items()})
    mel = torch.randn(1, 20, 80)
    serving.source.noise.zero_()
    served.module.source.noise.zero_()  # type: ignore[operator, union-attr]
    with torch.no_grad():
        _, pitch = served(vocoder.speak, mel, torch.zeros(1, 20))
        audio, _ = served(vocoder.speak, mel, pitch)
    row = VocoderRow(mel[0], torch.zeros(serving.source.harmonics, dtype=torch.float64), 0, 20, 0)
    torch.testing.assert_close(audio[0], serving([row])[0][0], rtol=1e-3, atol=1e-4)


def test_the_onnx_speech_tokenizer_gives_the_tokens_that_training_saw(tmp_path: Path) -> None:
    network = SpeechTokenizer(16)
    network.save(tmp_path / "tokenizer.onnx")
    log_mel = torch.randn(1, 403, 128)
    session = onnxruntime.InferenceSession(tmp_path / "tokenizer.onnx")
    feed = {"feats": log_mel.transpose(1, 2).contiguous().numpy(), "feats_length": np.array([403], np.int32)}
    tokens = session.run(None, feed)[0]
    loaded = SpeechTokenizer(16)
    loaded.load(tmp_path / "tokenizer.onnx")
    with torch.no_grad():
        assert tokens.tolist() == speech_tokens(network.contents(log_mel)).tolist()
        assert loaded.contents(log_mel).tolist() == network.contents(log_mel).tolist()
    assert COUNTS > WINDOW  # repetition-aware sampling never finds a token among the last ones
    assert len(set(tokens[0][:COUNTS])) == COUNTS


def test_the_onnx_speaker_encoder_is_the_trained_one(tmp_path: Path) -> None:
    network = SpeakerEncoder(16, 5)
    network.save(tmp_path / "speaker.onnx")
    fbank = torch.randn(1, 150, 80)
    session = onnxruntime.InferenceSession(tmp_path / "speaker.onnx")
    loaded = SpeakerEncoder(16, 5)
    loaded.load(tmp_path / "speaker.onnx")
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"input": fbank.numpy()})[0], network(fbank).numpy(), atol=1e-4)
        assert torch.equal(loaded(fbank), network(fbank))


def _language_model_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    parameters = new_language_model(TOY.language_model, "cpu")
    network = LanguageModel(TOY.language_model, parameters)
    example = whole(TEXT, SPEECH)
    ids, targets = torch.tensor([example.ids]), torch.tensor([example.targets])
    ahead = torch.randint(40, (len(SPEECH), 1 + PHONES_AHEAD))
    return parameters, lambda: network.loss(ids, targets, ahead)[0]


def _flow_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    parameters, served = new_flow(TOY, "cpu")
    batch = flow_batch()
    return parameters, lambda: flow.loss(served, *batch, torch.tensor(3), torch.tensor(10), streaming=True)["loss"]


def flow_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mel and speakers."""
    tokens, mel, speaker = torch.randint(SPEECH_TOKENS, (4, 33)), torch.randn(4, 60, 80) - 5, torch.randn(4, 192)
    return tokens, mel, speaker


def _flow_encoder_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    parameters, served = new_flow(TOY, "cpu")
    tokens, mel, _ = flow_batch()
    teacher = torch.randn_like(mel)
    compute = partial(flow.encoder_loss, served, tokens, mel, teacher, torch.tensor(0), streaming=False)
    return parameters, lambda: compute()["loss"]


def _vocoder_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    parameters, served, discriminators = new_vocoder(TOY, "cpu")
    batch = vocoder_batch()
    return parameters, lambda: vocoder.loss(served, discriminators, *batch, adversarial=False)["loss"]


def vocoder_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Mel, audio and pitch."""
    mel, audio, f0 = torch.randn(2, 10, 80), 0.1 * torch.randn(2, 4800), torch.full((2, 10), 150.0)
    return mel, audio, f0


def _discriminator_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    discriminators = Discriminators()
    made, real = 0.1 * torch.randn(2, 2400), torch.linspace(0, 150, 2400).sin().expand(2, -1)
    return dict(discriminators.named_parameters()), lambda: discriminators.losses(made, real)["discriminator"]


@pytest.mark.parametrize("speed", tape.SPEEDS)
def test_a_tape_moves_pitch_and_mel_together(speed: float) -> None:
    frames = 20
    needed = tape.frames_for(frames, speed)
    seconds = torch.arange(SAMPLES_PER_FRAME * needed) / SAMPLE_RATE
    hertz = 200.0
    mel, audio, f0 = tape.play(
        0.3 * torch.sin(2 * torch.pi * hertz * seconds)[None], torch.full((1, needed), hertz), speed, frames
    )
    assert (mel.shape, audio.shape, f0.shape) == ((1, frames, MEL_BINS), (1, SAMPLES_PER_FRAME * frames), (1, frames))
    assert torch.allclose(f0, torch.tensor(hertz * speed))
    crossings = (audio[0].sign().diff() != 0).sum()
    assert crossings == pytest.approx(2 * hertz * speed * len(audio[0]) / SAMPLE_RATE, abs=1)
    inside = slice(2, -2)  # where the crop's ends, which `prompt_mel` mirrors, are out of sight
    torch.testing.assert_close(mel[0, inside], prompt_mel(audio[0])[inside], atol=1e-3, rtol=0)


def _tokenizer_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    network = SpeechTokenizer(16)
    log_mel, phones = torch.randn(2, 40, 128), torch.randint(40, (2, 20))
    return dict(network.named_parameters()), lambda: network.loss(log_mel, phones)[0]


def _speaker_loss() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    network = SpeakerEncoder(16, 5)
    fbank, speakers = torch.randn(5, 60, 80), torch.arange(5)
    return dict(network.named_parameters()), lambda: network.loss(fbank, speakers)[0]


def test_the_factored_head_gives_the_probabilities_of_the_table_in_the_file() -> None:
    parameters = new_language_model(TOY.language_model, "cpu")
    network = LanguageModel(TOY.language_model, parameters)
    hidden = torch.randn(4, TOY.language_model.hidden_size)
    tokens = torch.tensor([0, 5000, END_OF_SPEECH, 6562])
    logits = network.logits(hidden)
    values, contents = log_probability(parameters, "llm_decoder", hidden, tokens)
    torch.testing.assert_close(values, logits.log_softmax(-1)[torch.arange(4), tokens])
    assert contents.tolist() == (logits[:, :MADE].argmax(-1) % CONTENTS).tolist()


def test_a_table_gets_its_factors_back() -> None:
    parameters, again = (new_language_model(TOY.language_model, "cpu") for _ in range(2))
    nn.init.normal_(parameters["speech_embedding.weight|content"])
    table = merged(parameters)
    fill(again, {name: tensor.detach() for name, tensor in table.items()})
    assert all(torch.allclose(tensor, table[name], atol=1e-5) for name, tensor in merged(again).items())


def test_vocoder_and_discriminators_are_trained_against_each_other() -> None:
    """What fools the discriminators does not train them, and what tells the two apart does not train the vocoder."""
    parameters, served, discriminators = new_vocoder(TOY, "cpu")
    losses = vocoder.loss(served, discriminators, *vocoder_batch(), adversarial=True)
    trains = {
        name: trained_by(losses[name], parameters)
        for name in ("adversarial", "feature_matching", "discriminator", "loss")
    }
    assert trains == {
        "adversarial": {"vocoder"},
        "feature_matching": {"vocoder"},
        "discriminator": {"discriminators"},
        "loss": {"vocoder", "discriminators"},
    }


def trained_by(loss: Tensor, parameters: dict[str, nn.Parameter]) -> set[str]:
    """Which of the vocoder's and the discriminators' parameters have a gradient."""
    trainable = {name: each for name, each in parameters.items() if each.requires_grad}
    gradients = torch.autograd.grad(loss, list(trainable.values()), retain_graph=True, allow_unused=True)
    moved = [name for name, each in zip(trainable, gradients, strict=True) if each is not None and each.any()]
    return {"discriminators" if name.startswith("|") else "vocoder" for name in moved}


def test_a_model_can_be_taken_up_again(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.__main__.DEMO_MODEL", exported)
    resume(Run(tmp_path, TOY, torch.device("cpu"), minutes=10, hours=0, texts=0, scale=1))
    model = open_model(exported)
    taken_up = {"flow": (flow.file_tensors(trained(tmp_path, "flow")), model.flow_state())}
    taken_up["vocoder"] = merged(trained(tmp_path, "vocoder")), model.vocoder_state()
    for tensors, saved in taken_up.values():
        assert tensors.keys() == saved.keys()
        # What half precision made of the sum of two factors is not quite one any more.
        assert all(torch.allclose(tensor, saved[name], rtol=0.01, atol=0.01) for name, tensor in tensors.items())
    assert load_tokenizer(tmp_path / TOKENIZER).get_vocab_size() == load_tokenizer(model.tokenizer).get_vocab_size()


def test_the_demo_model_can_be_taken_up_with_another_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimator and the speakers stay, and the new encoder learns what the old one says."""
    model = open_model(DEMO_MODEL)
    assert isinstance(model.config.flow, FlowConfig)
    config = replace(DEMO, flow=replace(model.config.flow, width=64, heads=2, feed_forward=64, up_blocks=4))
    run = Run(tmp_path, config, torch.device("cpu"), minutes=0.1, hours=0, texts=0, scale=0.01)
    resume(run)
    saved, start = model.flow_state(), flow.file_tensors(trained(tmp_path, "flow_start"))
    kept = [name for name in saved if not name.startswith(flow.ENCODER)]
    assert {name.split(".")[0] for name in kept} == {"spk_embed_affine_layer", "decoder"}
    assert all(torch.equal(start[name], saved[name]) for name in kept)

    monkeypatch.setattr(flow, "LENGTHS", (30,))
    tokens = 100
    shapes = {"mel": (MEL_BINS,), "phones": ()}
    data = {name: torch.randn(PER_TOKEN[name] * tokens, *shape) for name, shape in shapes.items()}
    starts, speakers = torch.tensor([0, tokens]), torch.tensor([0])
    save_whole({"data": data, "starts": starts, "speakers": speakers, "texts": [""]}, tmp_path / "corpus.pt")
    save_whole(torch.randint(CONTENTS, (tokens,)).short(), tmp_path / "contents.pt")
    save_whole(torch.randn(1, 192), tmp_path / "embeddings.pt")
    monkeypatch.setattr("training.__main__.fit", two_steps)
    train_flow_encoder(run)
    begun = trained(tmp_path, "flow")
    assert all(torch.equal(begun[name], start[name]) for name in kept)
    assert not torch.equal(begun["encoder_proj.weight"], start["encoder_proj.weight"])
    train_flow_encoder(run)  # once the flow has begun, its encoder is left alone
    assert torch.equal(trained(tmp_path, "flow")["encoder_proj.weight"], begun["encoder_proj.weight"])


def two_steps(name: str, out: Path, parameters: dict[str, nn.Parameter], loss: Loss, **_: float) -> None:
    """`fit`, which goes by the clock, for two steps."""
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    for _step in range(2):
        value, _report = loss(0.0)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_the_language_model_is_told_what_is_spoken_at_each_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / TOKENIZER, TOY.language_model, ["ab cd"] * 9)
    tokenizer = load_tokenizer(tmp_path / TOKENIZER)
    phones = [0, 0, 3, 3, 3, 3, 0, 0, 7, 7, 7, 7, 0, 0]  # a pause, "ab", a pause, "cd", a pause
    spoken = Utterance("ab cd", torch.arange(7), torch.tensor(phones), 0)
    batches = Batches(tokenizer, [spoken], tokens=100)
    example, ahead = batches.example(progress=0)
    assert sum(0 <= target < SPEECH_TOKENS for target in example.targets) == len(ahead)
    text = tokenizer.encode("ab cd").ids
    ahead = batches.ahead(0, text)
    assert ahead[:, 0].tolist() == [text[0]] * 4 + [text[-1]] * 3
    assert ahead[1].tolist()[1:] == [3, 0, 7, 0, 0]


def test_words_keep_one_token_of_the_pauses_around_them_and_sentences_all() -> None:
    phones = torch.tensor([0, 0, 0, 0, 0, 3, 3, 3, 0, 0, 4, 4, 0, 0, 0, 0])
    word, sentence = (utterance(text, torch.arange(8), phones, 0) for text in ("Ab", "Ab."))
    assert word.contents.tolist() == [1, 2, 3, 4, 5, 6]
    assert word.phones.tolist() == phones[2:14].tolist()
    assert sentence.contents.tolist() == list(range(8))


def test_training_begins_with_words_and_prompts_are_sentences(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / TOKENIZER, TOY.language_model, ["ab cd"] * 9)
    phones = torch.full((80,), 3)
    words = [utterance("ab", torch.arange(10), phones[:20], 0) for _ in range(4)]
    sentences = [utterance("Ab cd ab cd.", torch.arange(40), phones, 0) for _ in range(6)]
    batches = Batches(load_tokenizer(tmp_path / TOKENIZER), [*sentences, *words], tokens=100)
    spoken = [
        {sum(0 <= target < SPEECH_TOKENS for target in batches.example(progress)[0].targets) for _ in range(200)}
        for progress in (0.0, 1.0)
    ]
    assert spoken == [{10}, {10, 40, 50, 80}]


def test_many_sentences_by_grammar_have_words_that_begin_alike() -> None:
    words = [start + letter for start in ("bx", "qx") for letter in "abcdefgh"]
    draw = random.Random(0)
    sentences = [by_grammar(draw, words, by_beginning(words)).lower() for _ in range(400)]
    told = [[word for word in words if word in sentence] for sentence in sentences]
    assert max(map(len, told)) == max(template.count("{}") for template in TEMPLATES)
    mixed = sum(len({word[:2] for word in each}) == 2 for each in told)
    assert 0.3 < mixed / len(told) < 0.5  # of the others some have a single word, or such by chance


def test_wordnets_examples_become_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.noun").write_text(
        '  1 This is the licence, which "nobody speaks".\n'
        '00001740 03 n 01 valley 0 000 | low land; "the river ran through the valley"; "May I see it?"\n'
        '00001741 03 n 01 price 0 000 | what is paid; "it was $5 in all"; "short"\n'
    )
    monkeypatch.setattr(texts, "WORDNET", tmp_path)
    assert texts.examples() == {"The river ran through the valley.", "May I see it?"}


def test_phone_errors_generates_as_the_engine_draws() -> None:
    network = LanguageModel(TOY.language_model, new_language_model(TOY.language_model, "cpu"))
    segments = [Segment.of(TEXT), Segment.of(TEXT[:3], PROMPT_TEXT, PROMPT_SPEECH)]
    together = generate(network, segments)
    assert [len(said) <= segment.max_tokens for said, segment in zip(together, segments, strict=True)] == [True] * 2
    assert all(segment.min_tokens <= len(said) for said, segment in zip(together, segments, strict=True))
    assert all(token <= END_OF_SPEECH for said in together for token in said)
    assert generate(network, segments[:1]) == together[:1]  # a longer neighbour changes nothing


@pytest.mark.parametrize(
    "make",
    [
        _language_model_loss,
        _flow_loss,
        _flow_encoder_loss,
        _vocoder_loss,
        _discriminator_loss,
        _tokenizer_loss,
        _speaker_loss,
    ],
)
def test_a_few_steps_make_each_loss_smaller(
    make: Callable[[], tuple[dict[str, nn.Parameter], Callable[[], Tensor]]],
) -> None:
    parameters, loss = make()
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-3)
    values = []
    for _ in range(12):
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(value.detach()))
    assert all(torch.isfinite(parameter).all() for parameter in parameters.values())
    assert np.mean(values[-3:]) < np.mean(values[:3])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of toy size, exported."""
    out = tmp_path_factory.mktemp("training")
    write_tokenizer(out / TOKENIZER, TOY.language_model, ["Some words to learn pieces of."])
    stages = {
        "language_model": new_language_model(TOY.language_model, "cpu"),
        "flow": new_flow(TOY, "cpu")[0],
        "vocoder": new_vocoder(TOY, "cpu")[0],
    }
    for name, parameters in stages.items():
        fit(name, out, parameters, lambda _: (torch.zeros(()), {}), minutes=0, rate=0)

    def fake_flite(text: str, speaker: int) -> tuple[None, Tensor]:  # the test machine may have no flite
        return None, 0.1 * torch.randn(32_000)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.export.recording", fake_flite)
        export(out, out / "model", TOY, new_speech_tokenizer(), new_speaker_encoder())
    return out / "model"


def test_an_exported_model_opens_with_its_preset_speakers(exported: Path) -> None:
    model = open_model(exported)
    assert model.config == TOY
    assert sorted(model.preset_speakers()) == ["awb", "rms", "slt"]
    saved = merged(trained(exported.parent, "flow"))["input_embedding.weight"]
    torch.testing.assert_close(model.flow_state()["input_embedding.weight"], saved, rtol=1e-3, atol=1e-3)
    assert {tensor.dtype for tensor in read_tensors(model.path / "flow.pt", meta=True).values()} == {torch.float16}


def test_an_exported_model_has_all_of_the_releases_tensors_and_what_is_shared_once(exported: Path) -> None:
    files = {"llm.pt": language_model_layout(TOY.language_model), "flow.pt": flow_layout(TOY.flow)}
    for name, layout in files.items():
        tensors = torch.load(exported / name, weights_only=True)
        assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == layout
        kept = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
        overhead = 1024 * len(tensors)  # a record in the archive
        assert (exported / name).stat().st_size < sum(kept.values()) + overhead
        assert sum(kept.values()) < sum(2 * tensor.numel() for tensor in tensors.values())
    head, embedding = (f"llm.model.{name}.weight" for name in ("lm_head", "model.embed_tokens"))
    state = torch.load(exported / "llm.pt", weights_only=True)
    assert state[head].data_ptr() == state[embedding].data_ptr()


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def parameters() -> dict[str, nn.Parameter]:
        return {"x": nn.Parameter(torch.zeros(1))}

    first, second = parameters(), parameters()
    fit("stage", tmp_path, first, lambda _: ((first["x"] - 1).square().sum(), {}), minutes=0.002, rate=0.1)
    at = trained(tmp_path, "stage")["x"]
    assert at == first["x"].detach() != 0
    fit("stage", tmp_path, second, lambda _: (second["x"].sum(), {}), minutes=0.002, rate=0.1)  # its time is over
    assert second["x"].detach() == at


def test_word_errors_count_edits() -> None:
    assert word_errors("The cat sat.", "the cat sat") == 0
    assert word_errors("The cat sat.", "a cat sat down") == 2
    assert word_errors("The cat sat.", "") == 3


def test_phone_errors_count_edits_of_phones_that_last() -> None:
    heard = [PHONES.index(phone) for phone in ("pau", "pau", "k", "k", "t", "ae", "ae", "ae", "t", "t", "pau", "pau")]
    assert collapsed(lasting(heard)) == ["k", "ae", "t"]
    assert edits(["k", "ae", "t"], ["k", "t", "s"]) == 2


def test_cases_of_one_sentence_count_as_one() -> None:
    of_sentences = np.random.default_rng(0).normal(1.0, 1.0, 40)
    low, high = interval(of_sentences, np.arange(40))
    assert low < of_sentences.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * of_sentences.std() / np.sqrt(40), rel=0.1)
    assert interval(np.repeat(of_sentences, 12), np.repeat(np.arange(40), 12)) == pytest.approx((low, high))
