"""Creates a small Qwen2 tokenizer: byte-level BPE trained on common words."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tools.random_checkpoint.words import CHINESE, ENGLISH
from vllm_cosyvoice.config import LanguageModelConfig

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROOM_FOR_SPECIAL_TOKENS = 32  # rows reserved for these and for those that the text front end adds
MAX_VOCABULARY = 3000
MIN_FREQUENCY = 2

# Qwen2's own split: contractions, words with the space before them, single digits, punctuation, white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

MOST_OFTEN = 400  # count of the most common word; the counts of the others follow Zipf's law


def write_tokenizer(directory: Path, config: LanguageModelConfig, corpus: Iterable[str] | None = None) -> None:
    """Write the files of `CosyVoice-BlankEN`. Its weights are a placeholder, as they are never read.

    The tokenizer is trained on `corpus`, or on common words.
    """
    directory.mkdir(parents=True)
    size = min(MAX_VOCABULARY, config.text_vocab_size - ROOM_FOR_SPECIAL_TOKENS)
    tokenizer = _train(size, _common_words() if corpus is None else corpus)
    tokenizer.model.save(str(directory))
    first_special = tokenizer.get_vocab_size()
    special = {name: first_special + index for index, name in enumerate(SPECIAL_TOKENS)}
    end_of_text = special[SPECIAL_TOKENS[0]]
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(special))
    _write_json(directory / "config.json", _model_config(config, end_of_text))
    _write_json(
        directory / "generation_config.json",
        {"bos_token_id": end_of_text, "eos_token_id": list(special.values())[::2], "do_sample": True},
    )
    (directory / "model.safetensors").write_bytes(save({"model.norm.weight": torch.ones(config.hidden_size)}))


def _train(size: int, corpus: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer=trainer)
    return tokenizer


def _common_words() -> Iterator[str]:
    """English words as they occur inside a sentence and at its start, and Chinese words, which have no spaces."""
    for rank, word in enumerate(ENGLISH.split()):
        yield from [f" {word}"] * _count(rank)
        yield from [word, word.capitalize(), f" {word.capitalize()}"] * MIN_FREQUENCY
    for rank, word in enumerate(CHINESE.split()):
        yield from [word] * _count(rank)


def _count(rank: int) -> int:
    return max(MIN_FREQUENCY, MOST_OFTEN // (rank + 1))


def _tokenizer_config(special: dict[str, int]) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(index): {"content": name} | flags for name, index in special.items()},
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL_TOKENS[0],
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": SPECIAL_TOKENS[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _model_config(config: LanguageModelConfig, end_of_text: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position,
        "max_window_layers": config.num_layers,
        "model_type": "qwen2",
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "sliding_window": config.max_position,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.text_vocab_size,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
