"""Reads `.pt` files: the names and shapes of their tensors, or the tensors themselves.

Training tools wrap and rename saved tensors; here, tensors always have the model's own names.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.layout import Layout

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"  # format of torch.save before PyTorch 1.6
GIT_LFS_MAGIC = b"version https://git-lfs"
NAMES_SHOWN = 3

WRAPPERS = ("model", "state_dict", "module")  # `module` is DeepSpeed's
COMPUTED = "rotary_emb.inv_freq"  # a buffer of old versions of transformers, computed from the settings
DEEPSPEED_SHARD = "optimizer_state_dict"
JOIN_SHARDS = (
    'join its shards with `python -c "import torch; from deepspeed.utils.zero_to_fp32 import'
    " get_fp32_state_dict_from_zero_checkpoint as join; torch.save(join('{directory}', '{tag}'), '{file}')\"`"
)


def check_present(path: Path) -> None:
    """Check that a file is not missing, empty, a git-lfs pointer or a directory.

    Raises:
        CheckpointError: with a fix.
    """
    if path.is_dir():
        if any(path.glob("*_states.pt")):
            join = JOIN_SHARDS.format(directory=path.parent, tag=path.name, file=f"{path}.joined")
            raise CheckpointError(f"{path} is a DeepSpeed checkpoint; {join} and put that file in its place")
        raise CheckpointError(f"{path} is a directory; put the file itself in its place")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; download the whole model again")
    with path.open("rb") as file:
        head = file.read(len(GIT_LFS_MAGIC))
    if not head:
        raise CheckpointError(f"{path} is empty; download it again")
    if head == GIT_LFS_MAGIC:
        raise CheckpointError(f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` in {path.parent}")


def read_pickle(path: Path, *, meta: bool) -> object:
    """Load `path`, which may contain only plain data and tensors. With `meta`, the tensors' bytes are not read.

    Raises:
        CheckpointError: the file is missing, empty, a pointer or cut short, or contains other objects.
    """
    check_present(path)
    with path.open("rb") as file:
        head = file.read(len(ZIP_MAGIC))
    if head != ZIP_MAGIC and not head.startswith(PICKLE_MAGIC):
        raise CheckpointError(f"{path} is not a PyTorch checkpoint; download it again or save it with torch.save")
    try:
        return torch.load(path, map_location="meta" if meta else "cpu", mmap=head == ZIP_MAGIC, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than tensors and plain data, so it is not loaded, as that could run arbitrary code;"
            " save only the tensors, as in torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        raise CheckpointError(f"{path} is cut short or damaged; download it again") from error


def read_tensors(path: Path, *, meta: bool) -> dict[str, torch.Tensor]:
    """Read the state dict at `path`, see `named_tensors`.

    Raises:
        CheckpointError: see `read_pickle`; or the file is not a state dict.
    """
    content = read_pickle(path, meta=meta)
    tensors = named_tensors(content)
    shard = isinstance(content, dict) and DEEPSPEED_SHARD in content
    if shard or (tensors and all(not tensor.numel() for tensor in tensors.values())):
        join = JOIN_SHARDS.format(directory="CHECKPOINTS", tag="TAG", file=path)
        raise CheckpointError(f"{path} is one file of a DeepSpeed checkpoint, CHECKPOINTS/TAG; {join}")
    if not tensors:
        raise CheckpointError(f"{path} contains no state dict of named tensors; put the model's own file there")
    return tensors


def named_tensors(content: object) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint under the model's own names; empty if it contains no state dict.

    Wrappers such as `{"model": …}` and the prefixes of DistributedDataParallel and torch.compile are removed. Other
    values from training (`epoch`, `step`) and tensors that follow from the settings are dropped.
    """
    if not isinstance(content, dict):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            return named_tensors(content[wrapper])
    return {
        name.replace("_orig_mod.", "").removeprefix("module."): tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor) and not name.endswith(COMPUTED)
    }


def vocoder_name(name: str) -> str | None:
    """The current name of a tensor in `hift.pt`, or None for one that only training needs.

    The vocoder is trained in a GAN (`generator.`, `discriminator.`), and older files name the parts of weight norm
    `weight_g` and `weight_v`.
    """
    if name.startswith(("discriminator.", "mel_spec_transform.")):
        return None
    name = name.removeprefix("generator.")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            return name.removesuffix(old) + f"parametrizations.weight.{new}"
    return name


def rename(tensors: Mapping[str, torch.Tensor], new_name: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
    """Rename `tensors`, and drop those whose new name is None."""
    return {name: tensor for old, tensor in tensors.items() if (name := new_name(old)) is not None}


def check_layout(path: Path, tensors: Mapping[str, torch.Tensor], layout: Layout) -> None:
    """Check the tensors of `path` against `layout`.

    Raises:
        CheckpointError: tensors are missing, unknown or have another shape. The message names the first ones.
    """
    if missing := [name for name in layout if name not in tensors]:
        raise CheckpointError(f"{path} lacks {_some(missing)}; it does not belong to this model's configuration")
    if unknown := [name for name in tensors if name not in layout]:
        raise CheckpointError(f"{path} contains {_some(unknown)}, which is not in CosyVoice2; is it another model's?")
    mismatches = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in layout.items()
        if tuple(tensors[name].shape) != shape
    ]
    if mismatches:
        raise CheckpointError(f"{path} has {_some(mismatches)}; it does not belong to this model's configuration")
    if other := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise CheckpointError(f"{path} is quantised ({_some(other)} is not floating point); use the original weights")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
