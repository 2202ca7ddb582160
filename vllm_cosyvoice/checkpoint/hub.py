"""Finds a model by path or hub name, and downloads it if needed."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, errors, snapshot_download

from vllm_cosyvoice.checkpoint import directory
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.presets import warn_of_damage
from vllm_cosyvoice.config import DEMO_MODEL, LLM_FILE, RELEASED_MODEL

log = logging.getLogger(__name__)

SETTINGS = ("*.yaml",)
# Files that the engine reads, besides the speech tokenizer and the language model. The release has another 1.3 GB:
# Qwen2's untuned weights and an exported estimator.
FILES = (
    directory.FLOW,
    directory.VOCODER,
    directory.SPEAKER_ENCODER,
    directory.PRESET_SPEAKERS,
    *(f"{directory.TOKENIZER}/{name}" for name in directory.TOKENIZER_FILES),
)


def find(model: str, hub: str = "huggingface", llm_file: str = LLM_FILE) -> Path:
    """Return the directory of `model`: a local directory, else a model on the hub, which is downloaded.

    Downloaded files are reused, and an interrupted download is resumed. Without a network, the hub's cache is used. The
    hubs' own settings apply: `HF_ENDPOINT` for a mirror, `HF_HOME` for the cache, and so on. Damaged preset speakers,
    which are optional, are logged as a warning.

    Args:
        model: a path, or a name such as `FunAudioLLM/CosyVoice2-0.5B` (`iic/CosyVoice2-0.5B` on ModelScope).
        hub: `huggingface` or `modelscope`.
        llm_file: the file of the language model, the only one that is downloaded.

    Raises:
        CheckpointError: there is no such directory or model, the hub can't be reached, or it is not a CosyVoice2.
    """
    path = _directory(model, hub, llm_file)
    warn_of_damage(path / directory.PRESET_SPEAKERS)
    return path


def _directory(model: str, hub: str, llm_file: str) -> Path:
    path = Path(model).expanduser()
    if path == DEMO_MODEL:
        log.warning(
            "Using the demo model: small, English only, trained on synthetic voices. For real voices and more languages"
            " use the released model, --model_dir %s, which is downloaded on first use.",
            RELEASED_MODEL,
        )
    if model and path.is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise CheckpointError(f"There is no directory {model}; give a model directory or a hub name like owner/name")
    if hub not in HUBS:
        raise CheckpointError(f"There is no hub {hub!r}; choose one of {', '.join(HUBS)}")
    download = HUBS[hub]
    # Download and check the settings first, before gigabytes of weights that may be of another family.
    family, _ = directory.read_settings(download(model, SETTINGS))
    return download(model, (*SETTINGS, *FILES, llm_file, family.speech_tokenizer))


def _from_hugging_face(model: str, patterns: Sequence[str]) -> Path:
    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns)))
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is neither a directory {model} nor a public model of that name on {_hugging_face()};"
            f" check the name, or log in with `hf auth login` if it is private"
        ) from error
    except Exception as error:  # the HTTP library, and with it the exceptions, differ between versions
        raise _failed(model, _hugging_face(), error) from error


def _from_modelscope(model: str, patterns: Sequence[str]) -> Path:
    try:
        from modelscope.hub.errors import HTTPError
        from modelscope.hub.snapshot_download import snapshot_download as download
    except ImportError as error:
        raise CheckpointError(
            "Downloading from ModelScope needs its package: `pip install modelscope`, or use the Hugging Face hub"
        ) from error
    try:
        return Path(download(model, allow_patterns=list(patterns)))
    except HTTPError as error:  # the hub's answer: the model is missing or needs a login
        raise CheckpointError(
            f"There is neither a directory {model} nor a public model of that name on ModelScope;"
            f" check the name, or log in with `modelscope login` if it is private"
        ) from error
    except ConnectionError as error:  # this client, unlike the other, does not use its cache on its own
        try:
            return Path(download(model, local_files_only=True))
        except Exception:
            raise _failed(model, "ModelScope", error) from error
    except Exception as error:  # as above
        raise _failed(model, "ModelScope", error) from error


def _hugging_face() -> str:
    return str(constants.ENDPOINT)


def _failed(model: str, hub: str, error: Exception) -> CheckpointError:
    # ModelScope's error gives only the number of failed files and stores the reasons in an attribute. The root cause is
    # more useful than the hubs' own messages, which are about their own tools.
    cause: BaseException = next(iter(getattr(error, "failed_files", {}).values()), error)
    while cause.__cause__:
        cause = cause.__cause__
    reason = str(cause).strip().partition("\n")[0].rstrip(".") or type(cause).__name__
    return CheckpointError(
        f"{model} could not be downloaded from {hub} ({reason}); check the network and start again (the download"
        f" resumes where it stopped), or give the path of a model directory"
    )


HUBS = {"huggingface": _from_hugging_face, "modelscope": _from_modelscope}
