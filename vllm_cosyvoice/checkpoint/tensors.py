"""`.pt` files: their tensors' names and shapes without reading the tensors, and the tensors themselves."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from vllm_cosyvoice.checkpoint.errors import CheckpointError
from vllm_cosyvoice.checkpoint.layout import Layout

ZIP_MAGIC = b"PK\x03\x04"
GIT_LFS_MAGIC = b"version https://git-lfs"
NAMES_SHOWN = 3


def check_present(path: Path) -> None:
    """Refuse a file that is missing, empty or a git-lfs pointer.

    Raises:
        CheckpointError: with the cure.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; download the whole model again")
    with path.open("rb") as file:
        head = file.read(len(GIT_LFS_MAGIC))
    if not head:
        raise CheckpointError(f"{path} is empty; download it again")
    if head == GIT_LFS_MAGIC:
        raise CheckpointError(f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` in {path.parent}")


def read_pickle(path: Path, *, meta: bool) -> object:
    """What `path` holds, as plain data and tensors only; on the meta device the tensors' bytes are not read.

    Raises:
        CheckpointError: missing, empty, a pointer, cut short, or holding anything else than plain data.
    """
    check_present(path)
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            raise CheckpointError(f"{path} is not a PyTorch checkpoint; download it again or save it with torch.save")
    try:
        return torch.load(path, map_location="meta" if meta else "cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain data, so it is not loaded") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is cut short or damaged; download it again") from error


def read_tensors(path: Path, *, meta: bool) -> dict[str, torch.Tensor]:
    """The state dict at `path`. What training leaves beside the tensors (`epoch`, `step`) is dropped.

    Raises:
        CheckpointError: as `read_pickle`, or not a state dict.
    """
    state = read_pickle(path, meta=meta)
    tensors = (
        {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
        if isinstance(state, dict)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{path} holds no state dict of named tensors; put the model's own file there")
    return tensors


def vocoder_name(name: str) -> str | None:
    """Today's name of a tensor in `hift.pt`, or None for one that only training needs.

    The vocoder is trained inside a GAN (`generator.`, `discriminator.`), and older files spell weight norm
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
    """`tensors` under their new names, without those whose new name is None."""
    return {name: tensor for old, tensor in tensors.items() if (name := new_name(old)) is not None}


def check_layout(path: Path, tensors: Mapping[str, torch.Tensor], layout: Layout) -> None:
    """Hold the tensors of `path` against `layout`.

    Raises:
        CheckpointError: names the first tensors that are missing, unknown or of another shape.
    """
    if missing := [name for name in layout if name not in tensors]:
        raise CheckpointError(f"{path} lacks {_some(missing)}; it does not belong to this model's configuration")
    if unknown := [name for name in tensors if name not in layout]:
        raise CheckpointError(f"{path} holds {_some(unknown)}, which CosyVoice2 does not have; is it another model's?")
    wrong = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in layout.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(f"{path} has {_some(wrong)}; it does not belong to this model's configuration")
    if other := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        raise CheckpointError(f"{path} is quantised ({_some(other)} is not floating point); use the original weights")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
