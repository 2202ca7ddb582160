"""Creates the model directory for vLLM: a generated `config.json` and a link to the language model's file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.config import LanguageModelConfig
from vllm_cosyvoice.vocabulary import END_OF_SPEECH, HEAD_SIZE, TEXT_OFFSET


def engine_config(config: LanguageModelConfig, architecture: str) -> dict[str, object]:
    """vLLM's `config.json`. `vocab_size` is the head's rows, `embedding_rows` those of the larger input table."""
    return {
        "architectures": [architecture],
        "model_type": "qwen2",
        "vocab_size": HEAD_SIZE,
        "embedding_rows": TEXT_OFFSET + config.text_vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "eos_token_id": END_OF_SPEECH,
        "torch_dtype": "float32",
    }


def cache_directory() -> Path:
    """Directory for derived files: `$VLLM_COSYVOICE_CACHE`, else `vllm-cosyvoice` in the user's cache."""
    if path := os.environ.get("VLLM_COSYVOICE_CACHE"):
        return Path(path).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllm-cosyvoice"


def engine_directory(llm: Path, config: LanguageModelConfig, architecture: str) -> Path:
    """Return the engine's directory for the weights at `llm`, and create it if needed. The model may be read-only.

    `architecture`: the name of the model's class in vLLM.

    The directory's name is a hash of its content, so other sizes or another file give another directory, and a link is
    never stale. Files are written atomically and every process writes the same content, so races are harmless.

    Raises:
        CheckpointError: the cache can't be written.
    """
    target = str(llm.resolve())
    text = json.dumps(engine_config(config, architecture), indent=2) + "\n"
    key = hashlib.sha256(f"{target}\n{text}".encode()).hexdigest()[:16]
    directory = cache_directory() / "engine" / key
    try:
        directory.mkdir(parents=True, exist_ok=True)
        link, settings = directory / "llm.pt", directory / "config.json"
        if not (link.is_symlink() and str(link.readlink()) == target):
            _replace(link, lambda path: path.symlink_to(target))
        if not (settings.is_file() and settings.read_text(encoding="utf-8") == text):
            _replace(settings, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{directory} cannot be written ({error.strerror}); set VLLM_COSYVOICE_CACHE to a writable directory"
        ) from error
    return directory


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Create `path` atomically with `write`."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        temporary = Path(directory) / path.name
        write(temporary)
        temporary.replace(path)
