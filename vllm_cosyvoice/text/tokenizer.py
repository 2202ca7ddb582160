"""CosyVoice's tokenizer: Qwen2's byte-level BPE and the tokens for sounds and markup."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from vllm_cosyvoice.text.special_tokens import SOUNDS


def load_tokenizer(path: Path, special_tokens: Iterable[str] = SOUNDS) -> Tokenizer:
    """Load the tokenizer in directory `path` (vocab.json, merges.txt, tokenizer_config.json) and add special tokens.

    Special tokens that are not in the vocabulary get the next free ids, in their order. The result is a tokenizer
    of the `tokenizers` library, which is faster and more thread-safe than transformers' wrapper.
    """
    from transformers import AddedToken, Qwen2TokenizerFast  # AutoTokenizer would import models, which takes seconds

    tokenizer = Qwen2TokenizerFast.from_pretrained(str(path), local_files_only=True)
    specials = [AddedToken(token, special=True, normalized=False) for token in special_tokens]
    tokenizer.add_tokens(specials, special_tokens=True)
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend
