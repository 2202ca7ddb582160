"""From what a user calls a model to a directory on this machine."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, errors, snapshot_download

from vllm_cosyvoice.checkpoint import directory
from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.presets import warn_of_damage
from vllm_cosyvoice.config import DEMO_MODEL, RELEASED_MODEL

log = logging.getLogger(__name__)

SETTINGS = ("*.yaml",)
# What the engine reads. The release holds another 1.3 GB: Qwen2's untuned weights and an exported estimator.
FILES = (
    directory.LANGUAGE_MODEL,
    directory.FLOW,
    directory.VOCODER,
    directory.SPEAKER_ENCODER,
    directory.SPEECH_TOKENIZER,
    directory.PRESET_SPEAKERS,
    *(f"{directory.TOKENIZER}/{name}" for name in directory.TOKENIZER_FILES),
)


def find(model: str, hub: str = "huggingface") -> Path:
    """The directory of `model`: a directory on this machine, else a name on the hub, which is then downloaded.

    Files already downloaded are used again and a broken download is taken up where it stopped; without a network the
    hub's cache answers. The hubs' own settings count: `HF_ENDPOINT` for a mirror, `HF_HOME` for the cache, and so on.
    Damage to the model's own speakers, which it can do without, is logged as a warning.

    Args:
        model: a path, or a name such as `FunAudioLLM/CosyVoice2-0.5B` (`iic/CosyVoice2-0.5B` on ModelScope).
        hub: `huggingface` or `modelscope`.

    Raises:
        CheckpointError: no such directory or model, no way to reach the hub, or not a CosyVoice2.
    """
    path = _directory(model, hub)
    warn_of_damage(path / directory.PRESET_SPEAKERS)
    return path


def _directory(model: str, hub: str) -> Path:
    path = Path(model).expanduser()
    if path == DEMO_MODEL:
        log.warning(
            "The demo model speaks: small, English only, taught by synthetic voices. For real voices and more languages"
            " name the released model, --model_dir %s, which is fetched when it is first used.",
            RELEASED_MODEL,
        )
    if model and path.is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise CheckpointError(f"There is no directory {model}; give a model directory or a hub name as in owner/name")
    if hub not in HUBS:
        raise CheckpointError(f"There is no hub {hub!r}; choose one of {', '.join(HUBS)}")
    download = HUBS[hub]
    # The settings come first: gigabytes of another family's weights would be a poor way to find out.
    directory.read_settings(download(model, SETTINGS))
    return download(model, SETTINGS + FILES)


def _from_hugging_face(model: str, patterns: Sequence[str]) -> Path:
    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns)))
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is neither a directory {model} nor a public model of that name on {_hugging_face()};"
            f" check the name, or log in with `hf auth login` if it is private"
        ) from error
    except Exception as error:  # the transport underneath, and so its errors, differ between versions
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
    except HTTPError as error:  # the hub answered: not there, or not without logging in
        raise CheckpointError(
            f"There is neither a directory {model} nor a public model of that name on ModelScope;"
            f" check the name, or log in with `modelscope login` if it is private"
        ) from error
    except ConnectionError as error:  # this client, unlike the other, wants to be asked for what its cache holds
        try:
            return Path(download(model, local_files_only=True))
        except Exception:
            raise _failed(model, "ModelScope", error) from error
    except Exception as error:  # as above
        raise _failed(model, "ModelScope", error) from error


def _hugging_face() -> str:
    return str(constants.ENDPOINT)


def _failed(model: str, hub: str, error: Exception) -> CheckpointError:
    # ModelScope's says only how many files failed, and carries why; the hubs' own sentences are about their own tools.
    cause: BaseException = next(iter(getattr(error, "failed_files", {}).values()), error)
    while cause.__cause__:
        cause = cause.__cause__
    reason = str(cause).strip().partition("\n")[0].rstrip(".") or type(cause).__name__
    return CheckpointError(
        f"{model} could not be downloaded from {hub} ({reason}); check the network and start again, the download goes"
        f" on where it stopped, or give the path of a model directory"
    )


HUBS = {"huggingface": _from_hugging_face, "modelscope": _from_modelscope}
