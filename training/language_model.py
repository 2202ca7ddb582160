"""Text to speech tokens: transformers' Qwen2, which has the file's names, over the one id space.

Beside the next token, training asks at each place for the phones from there on and for the text token being spoken, by
layers that are not in the file. It is to teach early to know one's place in the text, and how text is pronounced.

One's place is where the letters are that sound like the last phones, so pronunciation comes first. It is learned
quickly where there is little to look for: training begins with words alone, then come phrases, then sentences.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import Qwen2Config, Qwen2Model

from training.factors import MADE, factor, log_probability, merged
from training.flite import PHONES
from training.released import Parameters, new_parameters
from training.sentences import is_sentence
from training.sequences import IGNORED, Example, streamed, whole
from training.speech_tokenizer import CONTENTS, speech_tokens
from vllm_cosyvoice.checkpoint.directory import UNUSED_TENSOR
from vllm_cosyvoice.checkpoint.layout import language_model_layout
from vllm_cosyvoice.config import LanguageModelConfig
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, SPEECH_TOKENS

HEAD, AHEAD, PLACE = "llm_decoder", "|ahead", "|place"
BODY = "llm.model.model."
EMBEDDING = BODY + "embed_tokens.weight"
TABLES = ("speech_embedding.weight", "llm_embedding.weight", EMBEDDING)  # as `vocabulary` has them
POOL = 2048  # examples drawn together and sorted by length, so that little is padding
SIMPLE_UNTIL = 0.3  # of the time: no prompts, and short utterances first, which teach to align
SHORTEST = 0.3  # share of the utterances to begin with, which are words
STREAMED = 0.3
PROMPTED = 0.6
INNER = 0.5  # texts with the space before them that a segment has which is not the first
MISREAD = 0.05  # speech tokens read as another, since the model will read its own
PHONES_AHEAD = 5  # the phone of the token that is to come, and those behind it
AHEAD_WEIGHT, PLACE_WEIGHT = 0.3, 0.3
EMBEDDING_SCALE, HEAD_SCALE = 0.7, 0.02  # tokens must not drown in what the first layers add to them
PAUSE = PHONES.index("pau")
NEVER = -20.0  # logit of a token that the speech tokenizer does not make
# The file's logits are those of training times this, as if the temperature were half: with CosyVoice2's default
# sampling more words are lost. A power of two, which is exact in half precision.
SHARPNESS = 2.0


def new_language_model(config: LanguageModelConfig, device: torch.device | str) -> Parameters:
    """Fresh parameters of `llm.pt`, with factored speech tables; without the text head, which nobody reads."""
    shapes = language_model_layout(config)
    del shapes[UNUSED_TENSOR]
    parameters = new_parameters(shapes, device)
    for name in TABLES:
        parameters[name].data.normal_(std=EMBEDDING_SCALE)
    parameters[f"{HEAD}.weight"].data.normal_(std=HEAD_SCALE)
    for name in parameters:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameters[name].data *= (2 * config.num_layers) ** -0.5  # so many are added up
    parameters[f"{HEAD}.bias"].data[MADE:END_OF_SPEECH] = NEVER
    for name in ("speech_embedding.weight", f"{HEAD}.weight", f"{HEAD}.bias"):
        factor(parameters, name)
    for name, rows in ((AHEAD, PHONES_AHEAD * len(PHONES)), (PLACE, config.text_vocab_size)):
        parameters[name] = nn.Parameter(torch.zeros(rows, config.hidden_size, device=device))
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

    def hidden(self, ids: Tensor, **settings: object) -> tuple[Tensor, object]:
        """Last hidden states [rows, length, width] of `ids` [rows, length], padded on the right, and Qwen2's cache."""
        tensors = merged(self.parameters)
        body = {name.removeprefix(BODY): tensor for name, tensor in tensors.items() if name.startswith(BODY)}
        embedded = F.embedding(ids, torch.cat([tensors[name] for name in TABLES]))
        result = functional_call(self.model, body, (), {"inputs_embeds": embedded, **settings})
        return result.last_hidden_state, result.past_key_values

    def logits(self, hidden: Tensor) -> Tensor:
        """[…, 6564] of hidden states."""
        tensors = merged(self.parameters)
        return F.linear(hidden, tensors[f"{HEAD}.weight"], tensors[f"{HEAD}.bias"])

    def loss(self, ids: Tensor, targets: Tensor, ahead: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of `targets` [rows, length] behind `ids`, and of what `ahead` says of each speech target."""
        misread = (ids < SPEECH_TOKENS) & (torch.rand(ids.shape, device=ids.device) < MISREAD)
        read = torch.where(misread, torch.randint_like(ids, MADE), ids)
        kept = targets != IGNORED
        hidden, wanted = self.hidden(read)[0][kept], targets[kept]
        log_probabilities, contents = log_probability(self.parameters, HEAD, hidden, wanted)
        token_loss = -log_probabilities.mean()
        speech = wanted < MADE
        places, phones = ahead[:, 0], ahead[:, 1:]
        placed = F.linear(hidden[speech], self.parameters[PLACE]).float()
        guesses = F.linear(hidden[speech], self.parameters[AHEAD]).float().view(-1, PHONES_AHEAD, len(PHONES))
        ahead_loss = AHEAD_WEIGHT * F.cross_entropy(guesses.flatten(0, 1), phones.flatten())
        ahead_loss = ahead_loss + PLACE_WEIGHT * F.cross_entropy(placed, places)
        report = {
            "token": token_loss.detach(),
            "content": (contents == wanted % CONTENTS)[speech].float().mean(),
            "next_phone": (guesses.detach().argmax(-1) == phones)[:, 1].float().mean(),
            "place": (placed.detach().argmax(-1) == places).float().mean(),
        }
        return token_loss + ahead_loss, report


class Utterance(NamedTuple):
    """What the language model learns from."""

    text: str
    contents: Tensor  # [n]
    phones: Tensor  # [2n]
    speaker: int


def utterance(text: str, contents: Tensor, phones: Tensor, speaker: int) -> Utterance:
    """An utterance; words and phrases keep one token of the pauses around them, as within a sentence."""
    if not is_sentence(text):
        sounding = (phones.view(-1, 2) != PAUSE).any(1).nonzero()
        first, end = max(0, int(sounding.min()) - 1), int(sounding.max()) + 2
        contents, phones = contents[first:end], phones[2 * first : 2 * end]
    return Utterance(text, contents, phones, speaker)


class Batches(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Random batches of utterances without end, for processes beside the one that trains.

    To make a batch takes as long as a GPU takes to learn it.
    """

    def __init__(self, tokenizer: Tokenizer, utterances: Sequence[Utterance], tokens: int) -> None:
        self.tokens = tokens  # a batch, padding included
        self.progress = torch.zeros(()).share_memory_()  # type: ignore[no-untyped-call]  # 0 … 1, to be kept up to date
        self.utterances = sorted(utterances, key=lambda each: len(each.contents))
        self.text = [text_ids(tokenizer, each.text) for each in self.utterances]
        self.inner = [text_ids(tokenizer, " " + each.text) for each in self.utterances]
        self.letters = _letters(tokenizer)
        self.prompts: dict[int, list[int]] = {}  # a speaker's sentences
        for index, each in enumerate(self.utterances):
            if is_sentence(each.text):
                self.prompts.setdefault(each.speaker, []).append(index)
        self.waiting: list[list[tuple[Example, Tensor]]] = []

    def example(self, progress: float) -> tuple[Example, Tensor]:
        """One sequence, and the `ahead` of each speech token to learn."""
        share = min(1.0, SHORTEST + (1 - SHORTEST) * progress / SIMPLE_UNTIL)
        index = int(random.random() * share * len(self.utterances))
        spoken = self.utterances[index]
        text = (self.inner if random.random() < INNER else self.text)[index]
        prompt_text: list[int] = []
        prompt_speech: list[int] = []
        coming = self.ahead(index, text)
        prompts = self.prompts.get(spoken.speaker)
        if prompts and progress > SIMPLE_UNTIL and random.random() < PROMPTED:
            other = random.choice(prompts)
            prompt_text, prompt_speech = self.text[other], speech_tokens(self.utterances[other].contents).tolist()
            coming = torch.cat([self.ahead(other, prompt_text), coming])
        speech = speech_tokens(spoken.contents, len(prompt_speech)).tolist()
        make = streamed if random.random() < STREAMED else whole
        example = make(text, speech, prompt_text, prompt_speech)
        learned = sum(0 <= target < SPEECH_TOKENS for target in example.targets)
        return example, coming[len(coming) - learned :]

    def ahead(self, index: int, text: list[int]) -> Tensor:
        """[n, 1 + PHONES_AHEAD] of the n tokens of an utterance: a token of its `text`, and phones.

        The text token is the one at that share of the letters which is the share of the phones spoken by then. The
        phones are the token's second one and the different ones that follow, then pauses.
        """
        order, places = torch.unique_consecutive(self.utterances[index].phones.long(), return_inverse=True)
        places = places[1::2]
        spoken = (order != PAUSE).cumsum(0)[places]
        letters = self.letters[text].cumsum(0)
        at = torch.searchsorted(letters, (spoken - 0.5) / spoken[-1].clamp(min=1) * letters[-1])
        order = F.pad(order, (0, PHONES_AHEAD), value=PAUSE)
        phones = order[places[:, None] + torch.arange(PHONES_AHEAD)]
        return torch.cat([torch.tensor(text)[at.clamp(max=len(text) - 1)][:, None], phones], dim=1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Ids and targets [rows, length], padded, and what is `ahead`."""
        random.seed(torch.initial_seed())  # of this process
        while True:
            yield self.next()

    def next(self) -> tuple[Tensor, Tensor, Tensor]:
        """One batch."""
        progress = float(self.progress)
        if not self.waiting:
            examples = sorted((self.example(progress) for _ in range(POOL)), key=lambda each: len(each[0].ids))
            batch: list[tuple[Example, Tensor]] = []
            for each in examples:
                if batch and (len(batch) + 1) * len(each[0].ids) > self.tokens:
                    self.waiting.append(batch)
                    batch = []
                batch.append(each)
            self.waiting.append(batch)
            random.shuffle(self.waiting)
        batch = self.waiting.pop()
        ids, targets = (
            nn.utils.rnn.pad_sequence([torch.tensor(each) for each in rows], batch_first=True, padding_value=padding)
            for rows, padding in (
                ([example.ids for example, _ in batch], 0),
                ([example.targets for example, _ in batch], IGNORED),
            )
        )
        return ids, targets, torch.cat([ahead for _, ahead in batch])


def file_tensors(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `llm.pt` holds. As in the release, the text head is tied to the text embedding."""
    tensors = merged(parameters)
    return _sharpened(tensors, SHARPNESS) | {UNUSED_TENSOR: tensors[EMBEDDING]}


def trained_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What training had, of the `tensors` that `llm.pt` holds."""
    return _sharpened(tensors, 1 / SHARPNESS)


def _sharpened(tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {name: factor * tensor if name.startswith(HEAD) else tensor for name, tensor in tensors.items()}


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The text tokens of `text`."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _letters(tokenizer: Tokenizer) -> Tensor:
    """How many letters each text token has; byte-level BPE writes a space as Ġ."""
    tokens = (tokenizer.id_to_token(token) for token in range(tokenizer.get_vocab_size()))
    return torch.tensor([sum(letter.isalpha() and letter != "Ġ" for letter in token or "") for token in tokens])
