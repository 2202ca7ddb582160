"""CosyVoice2's tokenizer: Qwen2's byte-level BPE and the tokens for sounds and markup."""

from pathlib import Path

from tokenizers import Tokenizer

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endofprompt|>",
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer in directory `path` (vocab.json, merges.txt, tokenizer_config.json) and add special tokens.

    Special tokens that are not in the vocabulary get the next free ids, in the order above. The result is a tokenizer
    of the `tokenizers` library, which is faster and more thread-safe than transformers' wrapper.
    """
    from transformers import AddedToken, Qwen2TokenizerFast  # AutoTokenizer would import models, which takes seconds

    tokenizer = Qwen2TokenizerFast.from_pretrained(str(path), local_files_only=True)
    specials = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer.add_tokens(specials, special_tokens=True)
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend
