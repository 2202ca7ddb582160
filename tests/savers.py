"""State dicts as training tools save them."""

from collections.abc import Callable
from typing import Any

import torch

State = dict[str, torch.Tensor]


def _prefixed(prefix: str) -> Callable[[State], dict[str, Any]]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def _submodule_compiled(state: State) -> dict[str, Any]:
    """As `model.decoder.estimator = torch.compile(model.decoder.estimator)` names a module's tensors."""
    inner = {"decoder.estimator.": "decoder.estimator._orig_mod.", "llm.model.model.": "llm.model.model._orig_mod."}
    inner["f0_predictor."] = "f0_predictor._orig_mod."
    renamed = {}
    for name, tensor in state.items():
        for plain, compiled in inner.items():
            name = name.replace(plain, compiled)
        renamed[name] = tensor
    return renamed


def _deepspeed(state: State) -> dict[str, Any]:
    """A `mp_rank_00_model_states.pt` of ZeRO 0 to 2, which holds all weights."""
    shapes = [{name: tensor.shape for name, tensor in state.items()}]
    rest = {"optimizer": None, "lr_scheduler": {"_step": 3}, "buffer_names": [], "param_shapes": shapes}
    return {"module": state, "sparse_tensor_module_names": set(), "ds_config": {"zero": 2}, "epoch": 3, **rest}


SAVERS: dict[str, Callable[[State], dict[str, Any]]] = {
    "DistributedDataParallel": _prefixed("module."),
    "torch.compile": _prefixed("_orig_mod."),
    "both": _prefixed("module._orig_mod."),
    "both the other way round": _prefixed("_orig_mod.module."),
    "torch.compile of a part": _submodule_compiled,
    "a dictionary with the model": lambda state: {"model": state, "optimizer": {"lr": 1e-4}, "epoch": 3},
    "a dictionary with the state": lambda state: {"state_dict": state, "hyper_parameters": {"lr": 1e-4}},
    "DDP in a dictionary": lambda state: {"model": _prefixed("module.")(state), "step": torch.tensor(7)},
    "DeepSpeed": _deepspeed,
    "an old transformers": lambda state: {
        **state,
        "llm.model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    },
}
