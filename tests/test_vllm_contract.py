"""What `vllm_cosyvoice/llm` takes for granted inside vLLM: which of it has the installed version changed?

Each entry says what is used of a class or function. A failure names what has to be looked at when vLLM's range in
`pyproject.toml` moves; whether it still works is for the end-to-end tests, and for `make test-gpu`.
"""

import ast
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import vllm
from vllm import envs

FOLDER = Path(__file__).parents[1] / "vllm_cosyvoice" / "llm"
GPU_MODULES = "vllm.v1.worker.gpu."  # of the second model runner, which needs Triton


def named(path: str) -> Any:
    """The object at `module:name.name`."""
    module, _, names = path.partition(":")
    if module.startswith(GPU_MODULES):
        pytest.importorskip("triton")
    found: Any = import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


# How we call it: the positional arguments' names, then the named ones.
CALLED: list[tuple[str, list[str], set[str]]] = [
    ("vllm:ModelRegistry.register_model", ["model_arch", "model_cls"], set()),
    ("vllm:ModelRegistry.get_supported_archs", [], set()),
    ("vllm.renderers.registry:RENDERER_REGISTRY.register", ["renderer_mode", "module", "class_name"], set()),
    ("vllm.inputs:tokens_input", ["prompt_token_ids"], set()),
    ("vllm.engine.arg_utils:AsyncEngineArgs.create_engine_config", ["self"], set()),
    ("vllm.v1.engine.async_llm:AsyncLLM.from_vllm_config", ["vllm_config"], {"disable_log_stats"}),
    ("vllm.v1.engine.async_llm:AsyncLLM.generate", ["self", "prompt", "sampling_params", "request_id"], set()),
    ("vllm.v1.engine.async_llm:AsyncLLM.check_health", ["self"], set()),
    ("vllm.v1.engine.async_llm:AsyncLLM.shutdown", ["self"], set()),
    ("vllm.plugins:load_general_plugins", [], set()),
    (
        "vllm.v1.sample.logits_processor.builtin:process_dict_updates",
        ["req_entries", "batch_update", "new_state"],
        set(),
    ),
    ("vllm.distributed:get_pp_group", [], set()),
    ("vllm.model_executor.models.utils:maybe_prefix", ["prefix", "name"], set()),
    ("vllm.model_executor.models.utils:AutoWeightsLoader.load_weights", ["self", "weights"], set()),
    ("vllm.model_executor.models.qwen2:Qwen2ForCausalLM.__init__", ["self"], {"vllm_config", "prefix"}),
    (
        "vllm.model_executor.layers.vocab_parallel_embedding:VocabParallelEmbedding.__init__",
        ["self", "num_embeddings", "embedding_dim"],
        {"quant_config", "prefix"},
    ),
    (
        "vllm.model_executor.layers.vocab_parallel_embedding:ParallelLMHead.__init__",
        ["self", "num_embeddings", "embedding_dim"],
        {"bias", "quant_config", "prefix"},
    ),
    (
        "vllm.model_executor.layers.logits_processor:LogitsProcessor.forward",
        ["self", "lm_head", "hidden_states", "embedding_bias"],
        set(),
    ),
    ("vllm.utils.torch_utils:async_tensor_h2d", ["data", "device"], set()),
    (
        "vllm.v1.worker.gpu.model_states.default:DefaultModelState.__init__",
        ["self", "vllm_config", "model", "encoder_cache", "device"],
        set(),
    ),
    (
        "vllm.v1.worker.gpu.model_states.default:DefaultModelState.add_request",
        ["self", "req_index", "new_req_data"],
        set(),
    ),
    ("vllm.v1.worker.gpu.model_states.default:DefaultModelState.apply_staged_writes", ["self"], set()),
    ("vllm.v1.worker.gpu.model_states.default:DefaultModelState.custom_sampler", ["self", "sampler"], set()),
    ("vllm.v1.worker.gpu.sample.sampler:Sampler.__call__", ["self", "logits", "input_batch"], set()),
    ("vllm.v1.worker.gpu.sample.sampler:Sampler.apply_staged_writes", ["self"], set()),
    (
        "vllm.v1.worker.gpu.sample.output:SamplerOutput",
        [],
        {"sampled_token_ids", "logprobs_tensors", "num_nans", "num_sampled", "num_rejected"},
    ),
    ("vllm.v1.core.sched.output:SchedulerOutput.make_empty", [], set()),
    ("vllm.v1.core.sched.scheduler:Scheduler.get_request_counts", ["self"], set()),
    ("vllm.v1.core.sched.scheduler:Scheduler._get_new_block_ids_to_zero", ["self"], set()),
    ("vllm.v1.core.sched.scheduler:Scheduler._update_after_schedule", ["self", "scheduler_output"], set()),
    (
        "vllm.v1.core.sched.scheduler:Scheduler._make_cached_request_data",
        [
            *("self", "running_reqs", "resumed_reqs", "num_scheduled_tokens"),
            *("spec_decode_tokens", "req_to_new_blocks"),
        ],
        set(),
    ),
    ("vllm.v1.core.kv_cache_manager:KVCacheManager.new_step_starts", ["self"], set()),
    ("vllm.v1.core.kv_cache_manager:KVCacheManager.allocate_slots", ["self", "request", "num_new_tokens"], set()),
    ("vllm.v1.core.block_pool:BlockPool.get_num_free_blocks", ["self"], set()),
    ("vllm.v1.engine:EngineCoreOutput", ["request_id", "new_token_ids"], set()),
    (
        "vllm.v1.worker.gpu.block_table:BlockTables.compute_slot_mappings",
        ["self", "idx_mapping", "query_start_loc", "positions"],
        {"num_tokens_padded"},
    ),
    (
        "vllm.v1.worker.gpu.cudagraph_utils:ModelCudaGraphManager.dispatch",
        ["self", "num_reqs", "num_tokens", "uniform_token_count", "num_active_loras"],
        set(),
    ),
    ("vllm.v1.worker.gpu.cudagraph_utils:ModelCudaGraphManager.run_fullgraph", ["self", "desc"], set()),
    ("vllm.forward_context:get_forward_context", [], set()),
    ("vllm.config:CUDAGraphMode.separate_routine", ["self"], set()),
]


@pytest.mark.parametrize(("path", "positional", "keywords"), CALLED, ids=[path for path, _, _ in CALLED])
def test_it_can_be_called_as_we_call_it(path: str, positional: list[str], keywords: set[str]) -> None:
    parameters = list(inspect.signature(named(path)).parameters.values())
    names = [parameter.name for parameter in parameters]
    assert names[: len(positional)] == positional
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    assert anything or keywords <= set(names)
    ours = {*positional, *keywords}
    needed = {
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    }
    assert needed <= ours, f"we do not give {needed - ours}"


OURS = "vllm_cosyvoice.llm."
# What our classes replace: vLLM has to call it by this name, with these arguments.
REPLACED = [
    ("vllm.v1.sample.logits_processor:LogitsProcessor", OURS + "repetition_aware_sampling:RepetitionAwareSampling"),
    ("vllm.v1.worker.gpu.model_states.default:DefaultModelState", OURS + "model_state:SpeechModelState"),
    ("vllm.model_executor.models.qwen2:Qwen2ForCausalLM", OURS + "model:CosyVoice2ForCausalLM"),
    ("vllm.v1.core.sched.async_scheduler:AsyncScheduler", OURS + "scheduler:SpeechScheduler"),
    ("vllm.v1.worker.gpu_worker:Worker", OURS + "multi_step:MultiStepWorker"),
    ("vllm.v1.worker.gpu_worker:Worker", OURS + "multi_step:SpeechWorker"),
    ("vllm.renderers:BaseRenderer", OURS + "renderer:TokenRenderer"),
]
SINCE = {"validate_token_ids": (0, 32)}  # vLLM does not have it before


@pytest.mark.parametrize(("theirs", "ours"), REPLACED, ids=[ours for _, ours in REPLACED])
def test_what_we_replace_is_still_there(theirs: str, ours: str) -> None:
    base, derived = named(theirs), named(ours)
    version = tuple(map(int, vllm.__version__.split(".")[:2]))
    for name, member in vars(derived).items():
        if not inspect.isfunction(member) or name.startswith("_") or version < SINCE.get(name, (0, 0)):
            continue
        assert list(inspect.signature(getattr(base, name)).parameters) == list(inspect.signature(member).parameters)
    missing: frozenset[str] = getattr(derived, "__abstractmethods__", frozenset())
    assert not missing, f"vLLM asks for {set(missing)}"


# Attributes that are made in an __init__, or used by name in another function's source.
WRITTEN = [
    ("vllm.v1.worker.gpu.model_states", "model.get_model_state_cls()", "the runner asks the model for its state"),
    ("vllm.v1.worker.gpu.model_runner", "custom_sampler", "the runner takes the model state's sampler"),
    ("vllm.v1.worker.gpu.model_runner", "self.sampler.add_request(", "the runner tells the sampler of new requests"),
    ("vllm.v1.worker.gpu.model_runner", "self.sampler.apply_staged_writes()", "the runner lets it upload them"),
    ("vllm.v1.worker.gpu.model_runner", "self.cudagraph_manager.run_fullgraph(batch_desc)", "a decode step is a graph"),
    ("vllm.v1.worker.gpu.model_runner", "self.block_tables", "where the KV cache of a request is"),
    ("vllm.v1.worker.gpu.model_runner", "self.input_buffers.seq_lens[:num_reqs_padded]", "what the graph reads"),
    (
        "vllm.v1.worker.gpu.model_runner",
        "self.input_buffers.positions[:num_tokens_after_padding]",
        "what it reads, too",
    ),
    ("vllm.v1.worker.gpu.model_runner", "input_batch.logits_indices", "the rows that tokens are drawn from"),
    (
        "vllm.v1.worker.gpu.model_runner",
        "query_start_loc_np[num_reqs + 1 :] = num_tokens",
        "a graph finds no tokens of requests that a step has not",
    ),
    (
        "vllm.v1.worker.gpu.input_batch",
        "input_buffers.query_start_loc[: num_reqs + 1]",
        "a graph is captured with the buffers of a step",
    ),
    ("vllm.v1.worker.gpu.block_table", "self.slot_mappings[:, :num_tokens]", "they say where keys and values go"),
    ("vllm.v1.worker.gpu.block_table", "tl.store(slot_mapping_ptr + offset, PAD_ID", "those of padding go nowhere"),
    (
        "vllm.v1.worker.gpu.cudagraph_utils",
        "num_reqs = desc.num_reqs or min(num_tokens, self.max_num_reqs)",
        "a graph is captured with as many requests as a step may have",
    ),
    ("vllm.v1.worker.gpu.cudagraph_utils", "forward_fn(CUDAGraphMode.NONE)", "all kernels run before a capture"),
    (
        "vllm.v1.attention.backends.triton_attn",
        "AttentionCGSupport.ALWAYS",
        "a graph may contain any attention of prompts",
    ),
    ("vllm.v1.attention.backends.triton_attn", "max_seqlen_q = attn_metadata.max_query_len", "what chooses its kernel"),
    ("vllm.v1.worker.gpu.input_batch", "num_tokens_after_padding", "the size of the graph of a step"),
    ("vllm.v1.worker.gpu.input_batch", "computed_delta = query_len - num_rejected", "how tokens of a step are counted"),
    ("vllm.v1.worker.gpu_worker", "self.model_runner.sample_tokens(", "the sampler runs after the model"),
    ("vllm.v1.worker.gpu.model_states.interface", "self.max_num_reqs", "slots of a model state"),
    ("vllm.v1.worker.gpu.model_states.interface", "self.device", "device of a model state"),
    ("vllm.v1.worker.gpu.sample.sampler", "self.req_states", "requests of a sampler"),
    ("vllm.v1.worker.gpu.states", "self.prompt_len", "lengths of prompts, by slot"),
    ("vllm.v1.worker.gpu.states", "self.all_token_ids", "prompt and speech, by slot"),
    ("vllm.v1.worker.gpu.states", "self.prefill_len", "tokens to read before the first is generated, by slot"),
    ("vllm.v1.worker.gpu.input_batch", "idx_mapping_np", "the slot of each row, on the host"),
    ("vllm.v1.core.sched.scheduler", "self.prev_step_scheduled_req_ids", "what the first runner knows of a request"),
    ("vllm.v1.core.sched.scheduler", "self.reset_preempted_req_ids", "requests that were put aside"),
    ("vllm.v1.core.kv_cache_manager", "self.empty_kv_cache_blocks", "no new blocks"),
    ("vllm.config.scheduler", "isinstance(self.scheduler_cls, str)", "the scheduler can be given by name"),
    ("vllm.v1.worker.gpu.input_batch", "expanded_idx_mapping", "the slot of each row"),
    ("vllm.v1.worker.gpu.input_batch", "seq_lens", "the length of each row's request"),
    ("vllm.model_executor.models.qwen2", "self.logits_processor", "what gathers logits"),
    ("vllm.model_executor.models.qwen2", "self.lm_head", "the head that ours replaces"),
    ("vllm.model_executor.models.qwen2", "self.embed_tokens", "the table that ours replaces"),
    (
        "vllm.v1.attention.backends.triton_attn",
        "kv_cache.transpose(1, 2).split(self.head_size, dim=-1)",
        "keys and values are side by side",
    ),
    ("vllm.model_executor.layers.attention.attention", "self.attn_backend", "the attention backend"),
    ("vllm.model_executor.layers.attention.attention", "self.layer_name", "whose plan an attention layer follows"),
    ("vllm.model_executor.layers.rotary_embedding.base", '"cos_sin_cache"', "the table of rotations"),
    ("vllm.model_executor.models.qwen2", "self.qkv_proj", "a matrix that our kernels read"),
    ("vllm.model_executor.models.qwen2", "self.o_proj", "a matrix that our kernels read, too"),
    ("vllm.model_executor.models.qwen2", "self.gate_up_proj", "the gate, then what passes it"),
    ("vllm.model_executor.models.qwen2", "self.down_proj", "the last matrix of a layer"),
    ("vllm.model_executor.models.qwen2", "self.rotary_emb", "what has the table of rotations"),
    ("vllm.renderers.base", "self.model_config", "where the renderer finds the number of ids"),
    ("vllm.v1.engine.core", "EngineCore", "the name of the process that ends with its parent"),
    ("vllm.v1.core.sched.output", "sampling_params", "what a new request asks for"),
]


@pytest.mark.parametrize(("module", "text", "what"), WRITTEN, ids=[what for _, _, what in WRITTEN])
def test_it_is_still_written_there(module: str, text: str, what: str) -> None:
    if module.startswith(GPU_MODULES):
        pytest.importorskip("triton")
    assert text in inspect.getsource(import_module(module)), f"{what}: {text} is not in {module}"


def test_arguments_of_the_engine_have_their_names() -> None:
    tree = ast.parse((FOLDER / "engine_arguments.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    call = next(node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "AsyncEngineArgs")
    given = {keyword.arg for keyword in call.keywords}
    assert len(given) > 15
    assert given <= {field.name for field in fields(named("vllm.engine.arg_utils:AsyncEngineArgs"))}


def test_a_plan_of_several_steps_is_a_plan_of_vllm() -> None:
    """vLLM makes an empty plan, and we replace two of its fields."""
    plan = named(OURS + "scheduler:MultiStepOutput").make_empty()
    plan.steps, plan.num_scheduled_tokens, plan.total_num_scheduled_tokens = 3, {"a": 3, "b": 3}, 6
    first = plan.first_step()
    assert (first.num_scheduled_tokens, first.total_num_scheduled_tokens) == ({"a": 1, "b": 1}, 2)


def test_parameters_of_sampling_have_their_names() -> None:
    ours = {"temperature", "max_tokens", "stop_token_ids", "detokenize", "output_kind", "extra_args"}
    assert ours <= set(named("vllm:SamplingParams").__annotations__)


@pytest.mark.parametrize(
    "variable",
    [
        *("USE_V2_MODEL_RUNNER", "WORKER_MULTIPROC_METHOD", "ENABLE_V1_MULTIPROCESSING", "RPC_BASE_PATH"),
        *("USE_FLASHINFER_SAMPLER", "USE_BREAKABLE_CUDAGRAPH"),
    ],
)
def test_variables_are_read(variable: str) -> None:
    assert f"VLLM_{variable}" in envs.environment_variables


def test_all_that_is_private_is_used_in_one_folder() -> None:
    """Benchmarks use what vLLM documents: `vllm` itself, its inputs and parameters. The rest uses nothing."""
    root = FOLDER.parents[1]
    public = {"vllm", "vllm.inputs", "vllm.sampling_params", "vllm.config"}
    strangers = [
        f"{path.relative_to(root)}: {module}"
        for folder in ("vllm_cosyvoice", "server", "training", "benchmarks")
        for path in sorted((root / folder).rglob("*.py"))
        if FOLDER not in path.parents
        for module in imports_of(path, lambda name: name.split(".")[0] == "vllm")
        if module not in public or folder in ("vllm_cosyvoice", "server")
    ]
    assert strangers == []


def imports_of(path: Path, wanted: Callable[[str], bool]) -> Iterable[str]:
    """Modules that a file imports from, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if wanted(name))
