"""Text to speech tokens: transformers' Qwen2, which has the file's names, over the one id space."""

import random
from collections.abc import Mapping

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2Model

from training.factors import add_factors, merged
from training.released import Parameters, new_parameters
from training.sequences import IGNORED, Example, streamed, whole
from training.speech_tokenizer import CONTENTS, speech_tokens
from vllm_cosyvoice.checkpoint.directory import UNUSED_TENSOR
from vllm_cosyvoice.checkpoint.layout import language_model_layout
from vllm_cosyvoice.config import LanguageModelConfig
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS

BODY = "llm.model.model."
TABLES = ("speech_embedding.weight", "llm_embedding.weight", BODY + "embed_tokens.weight")  # as `vocabulary` has them
ROWS = 64
MIXED = 8  # batches drawn together and sorted by length, so that little is padding
STREAMED = 0.3
PROMPTED = 0.6
INNER = 0.2  # texts with the space before them that a segment has which is not the first
MISREAD = 0.05  # speech tokens read as another, since the model will read its own
EMBEDDING_SIZE = 0.02


def new_language_model(config: LanguageModelConfig, device: torch.device | str) -> Parameters:
    """Fresh parameters of `llm.pt`, with factored speech tables; without the text head, which nobody reads."""
    shapes = language_model_layout(config)
    del shapes[UNUSED_TENSOR]
    parameters = new_parameters(shapes, device)
    for name in (*TABLES, "llm_decoder.weight"):
        parameters[name].data.normal_(std=EMBEDDING_SIZE)
    add_factors(parameters, "speech_embedding.weight", EMBEDDING_SIZE)
    add_factors(parameters, "llm_decoder.weight", EMBEDDING_SIZE)
    return parameters


class LanguageModel:
    """Logits and loss with given parameters."""

    def __init__(self, config: LanguageModelConfig, parameters: Parameters) -> None:
        self.parameters = parameters
        settings = Qwen2Config(
            vocab_size=config.text_vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.max_position,
            rope_theta=config.rope_theta,
            rms_norm_eps=config.rms_norm_eps,
            use_cache=False,
        )
        device = next(iter(parameters.values())).device
        self.model = Qwen2Model(settings).to(device)

    def logits(self, ids: Tensor) -> Tensor:
        """[rows, length, 6564] behind each of `ids` [rows, length], padded on the right."""
        tensors = merged(self.parameters)
        table = [tensors[name] for name in TABLES]
        body = {name.removeprefix(BODY): tensor for name, tensor in tensors.items() if name.startswith(BODY)}
        embedded = F.embedding(ids, torch.cat(table))
        hidden = functional_call(self.model, body, (), {"inputs_embeds": embedded}).last_hidden_state
        return F.linear(hidden, tensors["llm_decoder.weight"], tensors["llm_decoder.bias"])

    def loss(self, ids: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of what is to come."""
        kept = targets != IGNORED
        speech = ids < SPEECH_TOKENS
        misread = speech & (torch.rand(ids.shape, device=ids.device) < MISREAD)
        read = torch.where(misread, torch.randint_like(ids, SPEECH_TOKENS), ids)
        logits = self.logits(read)[kept].float()
        wanted = targets[kept]
        guessed = logits.argmax(-1)
        report = {
            "accuracy": (guessed == wanted).float().mean(),
            "content": (guessed % CONTENTS == wanted % CONTENTS).float().mean(),
        }
        return F.cross_entropy(logits, wanted), report


class Batches:
    """Random examples of a corpus: texts, content codes and speakers of its utterances."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str], contents: list[Tensor], speakers: list[int]) -> None:
        self.text = [_ids(tokenizer, text) for text in texts]
        self.inner = [_ids(tokenizer, " " + text) for text in texts]
        self.contents = [each.cpu() for each in contents]
        self.by_speaker: dict[int, list[int]] = {}
        for index, speaker in enumerate(speakers):
            self.by_speaker.setdefault(speaker, []).append(index)
        self.speakers = speakers
        self.waiting: list[list[Example]] = []

    def example(self) -> Example:
        """One sequence of any mode."""
        index = random.randrange(len(self.text))
        text = (self.inner if random.random() < INNER else self.text)[index]
        prompt_text: list[int] = []
        prompt_speech: list[int] = []
        if random.random() < PROMPTED:
            other = random.choice(self.by_speaker[self.speakers[index]])
            prompt_text, prompt_speech = self.text[other], speech_tokens(self.contents[other]).tolist()
        speech = speech_tokens(self.contents[index], len(prompt_speech)).tolist()
        make = streamed if random.random() < STREAMED else whole
        return make(text, speech, prompt_text, prompt_speech)

    def next(self, rows: int = ROWS) -> tuple[Tensor, Tensor]:
        """Ids and targets [rows, length], padded."""
        if not self.waiting:
            examples = sorted((self.example() for _ in range(MIXED * rows)), key=lambda example: len(example.ids))
            self.waiting = [examples[start : start + rows] for start in range(0, len(examples), rows)]
            random.shuffle(self.waiting)
        examples = self.waiting.pop()
        ids, targets = (
            nn.utils.rnn.pad_sequence([torch.tensor(each) for each in rows_], batch_first=True, padding_value=padding)
            for rows_, padding in (
                ([example.ids for example in examples], 0),
                ([example.targets for example in examples], IGNORED),
            )
        )
        return ids, targets


def file_tensors(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `llm.pt` holds."""
    return merged(parameters)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
