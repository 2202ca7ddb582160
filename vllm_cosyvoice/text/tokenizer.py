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
    """The tokenizer in directory `path` (vocab.json, merges.txt, tokenizer_config.json), special tokens added.

    A special token that is not in the vocabulary takes the next free id, in the order above. What comes back is
    the tokenizer of the `tokenizers` library, which is faster and safer across threads than transformers' wrapper.
    """
    from transformers import AddedToken, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    specials = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer.add_tokens(specials, special_tokens=True)
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend
