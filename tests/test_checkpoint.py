"""What a model directory must be, and the sentence for each way in which it is not."""

import json
import math
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.savers import SAVERS
from tools.random_checkpoint import TINY, write_model_directory
from tools.random_checkpoint.weights import flow_weights, language_model_weights, vocoder_weights
from vllm_cosyvoice.checkpoint import CheckpointError, ModelDirectory, open_model
from vllm_cosyvoice.checkpoint.cosyvoice2 import COSYVOICE2
from vllm_cosyvoice.checkpoint.hyperyaml import CLASS, HyperYaml
from vllm_cosyvoice.checkpoint.layout import Layout, flow_layout, language_model_layout, vocoder_layout
from vllm_cosyvoice.checkpoint.vllm_directory import engine_directory
from vllm_cosyvoice.config import FlowConfig, LanguageModelConfig, ModelConfig, VocoderConfig
from vllm_cosyvoice.vocoder.torch.loading import vocoder_weights as vocoder_modules
from vllm_cosyvoice.voice import VoiceEncoder

MANIFEST = Path(__file__).parent / "golden_data" / "manifest.json"
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2023316821\n"

QWEN2_CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
}

FULL = ModelConfig()
SMALL = ModelConfig(
    LanguageModelConfig(128, 256, num_layers=4, num_heads=4, num_kv_heads=2, text_vocab_size=1000),
    FlowConfig(
        feed_forward=512,
        blocks=2,
        estimator_channels=64,
        estimator_heads=4,
        estimator_head_dim=16,
        estimator_blocks=1,
        estimator_mid_stages=2,
    ),
    VocoderConfig(base_channels=64, f0_channels=64),
)


@pytest.mark.parametrize(("size", "config"), [("small", SMALL), ("full", FULL)])
def test_layouts_are_those_of_the_reference(size: str, config: ModelConfig) -> None:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    layouts: dict[str, Layout] = {
        "llm": language_model_layout(config.language_model),
        "flow": flow_layout(config.flow),
        "hift": vocoder_layout(config.vocoder),
    }
    for part, layout in layouts.items():
        assert layout == {name: tuple(shape) for name, shape in manifest[f"{part}.{size}"].items()}


def test_sizes_are_read_from_the_files(tiny_model: Path) -> None:
    assert open_model(tiny_model).config == TINY


def test_states_have_the_layouts_names_in_float32(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    for state, layout in (
        (model.flow_state(), flow_layout(TINY.flow)),
        (model.vocoder_state(), vocoder_layout(TINY.vocoder)),
    ):
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == layout
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}


# --- other spellings that are just as good


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Load a `.pt` file, edit its dictionary and save it again."""
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


def test_older_spellings_of_the_vocoder_give_the_same_state(tiny_model: Path, model: Path) -> None:
    def respell(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            old = name.replace("parametrizations.weight.original0", "weight_g")
            old = old.replace("parametrizations.weight.original1", "weight_v").removeprefix("generator.")
            state[old] = state.pop(name)

    change(model / "hift.pt", respell)
    expected = open_model(tiny_model).vocoder_state()
    actual = open_model(model).vocoder_state()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("saved", SAVERS)
def test_what_saved_a_checkpoint_makes_no_difference(tiny_model: Path, model: Path, saved: str) -> None:
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        torch.save(SAVERS[saved](torch.load(model / name, weights_only=True)), model / name)
    expected, actual = open_model(tiny_model), open_model(model)
    for ours, theirs in (
        (actual.flow_state(), expected.flow_state()),
        (actual.vocoder_state(), expected.vocoder_state()),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_files_of_the_time_before_pytorch_1_6_are_read(tiny_model: Path, model: Path) -> None:
    for name in ("llm.pt", "flow.pt", "hift.pt", "spk2info.pt"):
        content = torch.load(model / name, weights_only=True)
        torch.save(content, model / name, _use_new_zipfile_serialization=False)
    expected, actual = open_model(tiny_model), open_model(model)
    flow = actual.flow_state()
    assert all(torch.equal(flow[name], tensor) for name, tensor in expected.flow_state().items())
    assert actual.preset_speakers().keys() == expected.preset_speakers().keys()


@pytest.mark.parametrize("old_names", [False, True])
def test_weights_with_their_norm_folded_in_make_the_same_vocoder(
    tiny_model: Path, model: Path, old_names: bool
) -> None:
    """As torch's remove_weight_norm and remove_parametrizations leave them; here in all layers but one."""
    kept = "generator.conv_post."

    def fold(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.endswith(".original0") and not name.startswith(kept)]:
            layer = name.removesuffix(".parametrizations.weight.original0")
            norm, direction = state.pop(name), state.pop(f"{layer}.parametrizations.weight.original1")
            state[f"{layer}.weight"] = norm * direction / direction.flatten(1).norm(dim=1)[:, None, None]
        if old_names:
            for number, name in enumerate(("weight_g", "weight_v")):
                state[kept + name] = state.pop(f"{kept}parametrizations.weight.original{number}")

    change(model / "hift.pt", fold)
    folded = open_model(model).vocoder_state()
    assert "conv_pre.weight" in folded
    expected = vocoder_modules(open_model(tiny_model).vocoder_state())
    actual = vocoder_modules(folded)
    assert actual.keys() == expected.keys()
    assert all(torch.allclose(actual[name], expected[name], rtol=1e-5, atol=0) for name in expected)


def test_a_folded_weight_beside_its_norm_is_refused(model: Path) -> None:
    change(model / "hift.pt", lambda state: state.update({"generator.conv_pre.weight": torch.ones(64, 80, 7)}))
    refused(model, str(model / "hift.pt"), "contains conv_pre.parametrizations.weight.original0")


def test_what_training_leaves_in_the_files_is_ignored(model: Path) -> None:
    change(model / "llm.pt", lambda state: state.update(epoch=3, step=700))
    change(model / "flow.pt", lambda state: state.update(epoch=3, step=700))
    change(model / "hift.pt", lambda state: state.update({"discriminator.weight": torch.ones(2)}))
    opened = open_model(model)
    assert "epoch" not in opened.flow_state()
    assert opened.vocoder_state().keys() == vocoder_layout(TINY.vocoder).keys()


def test_the_unused_text_head_may_be_missing(model: Path) -> None:
    change(model / "llm.pt", lambda state: state.pop("llm.model.lm_head.weight"))
    open_model(model)


def test_half_precision_files_are_read_as_float32(model: Path) -> None:
    change(model / "flow.pt", lambda state: state.update({name: value.half() for name, value in state.items()}))
    assert {tensor.dtype for tensor in open_model(model).flow_state().values()} == {torch.float32}


# --- everything that can be wrong


def cut(path: Path, keep: float) -> None:
    """Keep the first part of a file, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: math.ceil(len(content) * keep)])


ALL_FILES = [
    "cosyvoice2.yaml",
    "llm.pt",
    "flow.pt",
    "hift.pt",
    "campplus.onnx",
    "speech_tokenizer_v2.onnx",
    "CosyVoice-BlankEN/config.json",
    "CosyVoice-BlankEN/vocab.json",
    "CosyVoice-BlankEN/merges.txt",
    "CosyVoice-BlankEN/tokenizer_config.json",
]
BINARY_FILES = [name for name in ALL_FILES if name.endswith((".pt", ".onnx"))]


def refused(model: Path, *parts: str) -> None:
    """Assert that the model is refused in one sentence that says all of `parts`."""
    with pytest.raises(CheckpointError) as caught:
        VoiceEncoder(open_model(model))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    refused(model, str(model / name), "is missing", "download")


@pytest.mark.parametrize("name", ALL_FILES)
def test_an_empty_file_is_named(model: Path, name: str) -> None:
    (model / name).write_bytes(b"")
    refused(model, str(model / name), "is empty", "download")


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_git_lfs_pointer_is_named(model: Path, name: str) -> None:
    (model / name).write_bytes(GIT_LFS_POINTER)
    refused(model, str(model / name), "git lfs pull")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", BINARY_FILES)
def test_a_cut_file_is_named(model: Path, name: str, keep: float) -> None:
    cut(model / name, keep)
    refused(model, str(model / name), "cut short", "download it again")


@pytest.mark.parametrize("name", BINARY_FILES)
def test_a_file_of_another_kind_is_named(model: Path, name: str) -> None:
    (model / name).write_text("<html>404 Not Found</html>" * 100)
    refused(model, str(model / name), "not a", "download it again")


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
def test_a_pickle_that_would_run_code_is_not_loaded(model: Path, name: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return trace.touch, ()

    torch.save({"weight": Trap()}, model / name)
    refused(model, str(model / name), "more than tensors and plain data", "torch.save(model.state_dict(), path)")
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
def test_a_cut_file_of_the_old_format_is_named(model: Path, name: str, keep: float) -> None:
    content = torch.load(model / name, weights_only=True)
    torch.save(content, model / name, _use_new_zipfile_serialization=False)
    cut(model / name, keep)
    refused(model, str(model / name))


def test_a_language_model_that_is_not_there_is_refused_with_those_that_are(model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no language model 'llm.rl.pt'; choose one of its files: llm.pt"):
        open_model(model, "llm.rl.pt")


def test_a_folder_of_deepspeeds_shards_is_refused_with_what_joins_them(model: Path) -> None:
    shards = model / "llm.pt"
    shards.unlink()
    shards.mkdir()
    refused(model, f"{shards} is a directory; put the file itself in its place")
    for name in ("mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        (shards / name).touch()
    refused(model, f"{shards} is a DeepSpeed checkpoint", f"join('{model}', 'llm.pt'), '{shards}.joined')")


@pytest.mark.parametrize(
    "content",
    [
        {"optimizer_state_dict": {"single_partition_of_fp32_groups": [torch.ones(9)]}, "ds_version": "0.16"},
        {"module": {"llm.model.model.norm.weight": torch.zeros(0)}, "ds_version": "0.16"},  # ZeRO 3
    ],
)
def test_one_of_deepspeeds_shards_is_refused_with_what_joins_them(model: Path, content: object) -> None:
    torch.save(content, model / "llm.pt")
    refused(model, f"{model / 'llm.pt'} is one file of a DeepSpeed checkpoint", "zero_to_fp32")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {7: torch.ones(3)}, torch.ones(3)])
def test_a_checkpoint_of_another_make_is_named(model: Path, content: object) -> None:
    torch.save(content, model / "flow.pt")
    refused(model, str(model / "flow.pt"), "no state dict")


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
def test_missing_tensors_are_named(model: Path, name: str) -> None:
    gone = list(torch.load(model / name, weights_only=True))[3:8]
    change(model / name, lambda state: [state.pop(key) for key in gone])
    refused(model, str(model / name), "lacks", gone[0].removeprefix("generator."), "and 2 more")


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
def test_unknown_tensors_are_named(model: Path, name: str) -> None:
    change(model / name, lambda state: state.update({"decoder.dit.weight": torch.ones(2)}))
    refused(model, str(model / name), "decoder.dit.weight", "another model's")


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
def test_wrong_shapes_are_named(model: Path, name: str) -> None:
    spoilt: list[str] = []

    def stretch(state: dict[str, torch.Tensor]) -> None:
        spoilt.append(next(key for key, tensor in state.items() if tensor.ndim == 2))
        state[spoilt[0]] = torch.ones(3, 7)

    change(model / name, stretch)
    refused(model, str(model / name), spoilt[0].removeprefix("generator."), "[3, 7] instead of [")


def test_quantised_weights_are_refused(model: Path) -> None:
    change(model / "llm.pt", lambda state: state.update({name: value.char() for name, value in state.items()}))
    refused(model, str(model / "llm.pt"), "quantised")


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("cosyvoice.llm.llm.Qwen2LM", "cosyvoice.llm.llm.TransformerLM", "llm is cosyvoice.llm.llm.TransformerLM"),
        ("flow.CausalMaskedDiffWithXvec", "flow.CausalMaskedDiffWithDiT", "flow is cosyvoice.flow.flow.Causal"),
        ("generator.HiFTGenerator", "generator.CausalHiFTGenerator", "hift is cosyvoice.hifigan.generator.Causal"),
        ("sample_rate: 24000", "sample_rate: 22050", "sample_rate to 22050, but this engine is built for 24000"),
        ("token_frame_rate: 25", "token_frame_rate: 50", "token_frame_rate to 50"),
        ("token_mel_ratio: 2", "token_mel_ratio: 4", "token_mel_ratio to 4"),
        ("chunk_size: 25", "chunk_size: 15", "static_chunk_size to 30, but this engine is built for 50"),
        ("output_size: 80", "output_size: 100", "flow.output_size to 100"),
        ("channels: [64]", "channels: [64, 64]", "one resolution"),
        ("num_blocks: 2", "num_blocks: two", "flow.encoder.num_blocks to two, which is not a positive whole number"),
        ("num_blocks: 2", "num_blocks: 3", "flow.pt lacks encoder.encoders.2."),
        ("mix_ratio: [5, 15]", "mix_ratio: [4, 20]", "llm.mix_ratio to [4, 20], but this engine is built for [5, 15]"),
        ("common.ras_sampling", "common.nucleus_sampling", "llm.sampling to cosyvoice.utils.common.nucleus_sampling"),
        ("top_p: 0.8", "top_p: 0.9", "llm.sampling.top_p to 0.9, but this engine is built for 0.8; restore that value"),
        ("top_k: 25", "top_k: 50", "llm.sampling.top_k to 50, but this engine is built for 25"),
        ("win_size: 10", "win_size: 20", "llm.sampling.win_size to 20, but this engine is built for 10"),
        ("tau_r: 0.1", "tau_r: 0.2", "llm.sampling.tau_r to 0.2, but this engine is built for 0.1"),
        (
            "matching.CausalConditionalCFM",
            "matching.ConditionalCFM",
            "flow.decoder to cosyvoice.flow.flow_matching.Con",
        ),
        ("solver: 'euler'", "solver: 'midpoint'", "content.solver to midpoint, but this engine is built for euler"),
        (
            "t_scheduler: 'cosine'",
            "t_scheduler: 'linear'",
            "t_scheduler to linear, but this engine is built for cosine",
        ),
        ("inference_cfg_rate: 0.7", "inference_cfg_rate: off", "inference_cfg_rate to False, which is not a number"),
        (
            "act_fn: 'gelu'",
            "act_fn: 'silu'",
            "flow.decoder.estimator.act_fn to silu, but this engine is built for gelu",
        ),
        (
            "'rel_pos_espnet'",
            "'rel_pos'",
            "flow.encoder.pos_enc_layer_type to rel_pos, but this engine is built for rel_p",
        ),
        ("macaron_style: False", "macaron_style: True", "flow.encoder.macaron_style to True"),
        ("ConvRNNF0Predictor", "CausalConvRNNF0Predictor", "hift.f0_predictor to cosyvoice.hifigan.f0_predictor.Caus"),
        ("n_fft: 1920", "n_fft: 1024", "feat_extractor.n_fft to 1024, but this engine is built for 1920"),
        ("hop_size: 480", "hop_size: 256", "feat_extractor.hop_size to 256"),
        ("fmin: 0", "fmin: 50", "feat_extractor.fmin to 50, but this engine is built for 0"),
        ("fmax: 8000", "fmax: 12000", "feat_extractor.fmax to 12000, but this engine is built for 8000"),
        ("fmax: 8000", "fmax: null", "feat_extractor.fmax to None, but this engine is built for 8000"),
        ("center: False", "center: True", "feat_extractor.center to True"),
        ("get_qwen_tokenizer", "get_tokenizer", "get_tokenizer to cosyvoice.tokenizer.tokenizer.get_tokenizer"),
        ("nsf_alpha: 0.1", "nsf_alpha: loud", "hift.nsf_alpha to loud, which is not a number"),
        ("[[1, 3, 5], [1, 3, 5], [1, 3, 5]]", "[[1, 3, 5], [1, 2, 3], [1, 3, 5]]", "equal lists"),
        ("upsample_rates: [8, 5, 3]", "upsample_rates: [8, 5]", "different numbers of stages"),
        ("<token_frame_rate>", "<frame_rate>", "refers to <frame_rate>, which it does not define"),
        ("sample_rate: 24000", "sample_rate: !ref <sample_rate>", "circular references"),
        ("<chunk_size> * <token_mel_ratio>", "<chunk_size> * <llm>", "multiplies values that are not numbers"),
        ("flow: !new", "flow: [!new", "not readable YAML"),
    ],
)
def test_settings_of_another_model_are_named(model: Path, old: str, new: str, says: str) -> None:
    edit_text(model / "cosyvoice2.yaml", old, new)
    refused(model, str(model), says)


def test_another_family_is_named_by_its_file(model: Path) -> None:
    (model / "cosyvoice2.yaml").rename(model / "cosyvoice.yaml")
    refused(model, "cosyvoice.yaml", "another family", "FunAudioLLM/CosyVoice2-0.5B")


def test_settings_under_the_name_of_another_family_are_refused(model: Path) -> None:
    (model / "cosyvoice2.yaml").rename(model / "cosyvoice3.yaml")
    refused(model, "cosyvoice3.yaml is not a CosyVoice3 configuration", "FunAudioLLM/Fun-CosyVoice3-0.5B-2512")


def test_qwen2_configurations_of_transformers_5_are_understood(model: Path) -> None:
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    facts = {name: value for name, value in QWEN2_CONFIG.items() if name != "rope_theta"} | rope
    (model / "CosyVoice-BlankEN" / "config.json").write_text(json.dumps(facts))
    assert open_model(model).config.language_model == replace(TINY.language_model, rope_theta=5e5)


def test_settings_that_a_model_may_choose_are_used(model: Path) -> None:
    chosen = {
        "inference_cfg_rate: 0.7": "inference_cfg_rate: 0.5",
        "nsf_voiced_threshold: 10.0": "nsf_voiced_threshold: 5",
        "lrelu_slope: 0.1": "lrelu_slope: 0.2",
    }
    for old, new in chosen.items():
        edit_text(model / "cosyvoice2.yaml", old, new)
    config = open_model(model).config
    assert config.flow == replace(TINY.flow, guidance=0.5)
    assert config.vocoder == replace(TINY.vocoder, voiced_threshold=5.0, leaky_slope=0.2)


def test_settings_that_older_files_leave_out_are_the_releases(model: Path) -> None:
    edit_text(model / "cosyvoice2.yaml", "            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>\n", "")
    assert open_model(model).config == TINY


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not a Qwen2 config.json"),
        ("[]", "is not a Qwen2 config.json"),
        ("{}", "lacks 'hidden_size'"),
        (json.dumps(QWEN2_CONFIG | {"num_attention_heads": 0}), "sizes must be positive"),
        (json.dumps(QWEN2_CONFIG | {"model_type": "qwen3"}), "model_type to qwen3, but this engine is built for qwen2"),
        (json.dumps(QWEN2_CONFIG | {"hidden_act": "gelu"}), "hidden_act to gelu, but this engine is built for silu"),
        (json.dumps(QWEN2_CONFIG | {"use_sliding_window": True}), "use_sliding_window to True"),
        (json.dumps(QWEN2_CONFIG | {"rope_scaling": {"type": "yarn"}}), "rope_scaling to {'type': 'yarn'}"),
        (json.dumps(QWEN2_CONFIG | {"rope_parameters": {"rope_type": "yarn"}}), "rope_type to yarn"),
    ],
)
def test_a_broken_qwen2_configuration_is_named(model: Path, content: str, says: str) -> None:
    (model / "CosyVoice-BlankEN" / "config.json").write_text(content)
    refused(model, str(model / "CosyVoice-BlankEN" / "config.json"), says)


def test_a_vocabulary_larger_than_the_embedding_is_refused(model: Path) -> None:
    vocabulary = model / "CosyVoice-BlankEN" / "vocab.json"
    vocabulary.write_text(json.dumps({"word": TINY.language_model.text_vocab_size}))
    refused(model, str(vocabulary), "4096 rows")
    vocabulary.write_text("[]")
    refused(model, str(vocabulary), "not a vocabulary")


def test_an_onnx_file_in_the_wrong_place_is_named(model: Path) -> None:
    shutil.copy(model / "speech_tokenizer_v2.onnx", model / "campplus.onnx")
    refused(model, str(model / "campplus.onnx"), "feats tensor(float) [1, 128, ", "feats_length tensor(int32) [1]")
    shutil.copy(model / "flow.decoder.estimator.fp32.onnx", model / "campplus.onnx")
    refused(model, str(model / "campplus.onnx"), "x tensor(float) [2, 80, ")


def test_a_path_that_is_no_directory_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "nothing is not a directory")


# --- the YAML


def read_yaml(path: Path, text: str) -> HyperYaml:
    path.write_text(text, encoding="utf-8")
    return HyperYaml(path)


def test_tags_become_plain_values_and_references_are_resolved(tmp_path: Path) -> None:
    settings = read_yaml(
        tmp_path / "settings.yaml",
        """
seed: !apply:random.seed [1986]
rate: 25
ratio: 2
double: !ref <rate> * <ratio> * 2
alias: !ref <double>
model: !new:package.Model
    rate: !ref <alias>
    inner: !name:package.function
        value: 7
copy: !ref <model>
""",
    )
    assert settings.get("seed") == [1986]
    assert settings.get("double") == 100
    assert settings.get("model.rate") == 100
    assert settings.get(f"model.inner.{CLASS}") == "package.function"
    assert settings.get("copy.inner.value") == 7
    assert settings.get("model.absent.deeper") is None


def test_tags_are_never_called(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    settings = read_yaml(
        tmp_path / "settings.yaml",
        f"a: !apply:os.mkdir ['{trace}']\nb: !new:pathlib.Path\n    x: 1\nc: !name:os.mkdir\n",
    )
    assert settings.get("a") == [str(trace)]
    assert not trace.exists()
    with pytest.raises(CheckpointError, match="not readable YAML"):
        read_yaml(tmp_path / "settings.yaml", f"a: !!python/object/apply:os.mkdir ['{trace}']\n")
    assert not trace.exists()


# --- the directory for vLLM


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("VLLM_COSYVOICE_CACHE", str(directory))
    return directory


def engine_settings(model: ModelDirectory) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = json.loads((model.engine_directory() / "config.json").read_text(encoding="utf-8"))
    return settings


def test_the_engine_gets_sizes_and_the_models_own_weights(tiny_model: Path, cache: Path) -> None:
    model = open_model(tiny_model)
    directory = model.engine_directory()
    assert cache in directory.parents
    assert (directory / "llm.pt").samefile(tiny_model / "llm.pt")
    settings = engine_settings(model)
    assert settings["architectures"] == ["CosyVoice2ForCausalLM"]
    assert settings["vocab_size"] == 6564
    assert settings["embedding_rows"] == 6566 + TINY.language_model.text_vocab_size
    assert model.engine_directory() == directory


def test_other_weights_under_the_same_name_are_never_met_by_an_old_copy(model: Path) -> None:
    before = open_model(model)
    first, first_settings = before.engine_directory(), engine_settings(before)
    shutil.rmtree(model)
    deeper = replace(TINY, language_model=replace(TINY.language_model, num_layers=3))
    write_model_directory(
        model,
        deeper,
        language_model=language_model_weights(deeper.language_model, 0),
        flow=flow_weights(deeper.flow, 0),
        vocoder=vocoder_weights(deeper.vocoder, 0),
        seed=0,
    )
    after = open_model(model)
    assert after.engine_directory() != first
    assert (first_settings["num_hidden_layers"], engine_settings(after)["num_hidden_layers"]) == (2, 3)
    assert (after.engine_directory() / "llm.pt").samefile(model / "llm.pt")


def test_a_damaged_engine_directory_is_mended(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    settings = engine_settings(model)
    directory = model.engine_directory()
    (directory / "config.json").write_text("{")
    (directory / "llm.pt").unlink()
    (directory / "llm.pt").symlink_to("/nowhere")
    assert engine_settings(model) == settings
    assert (directory / "llm.pt").samefile(tiny_model / "llm.pt")


def test_a_read_only_model_directory_will_do(model: Path) -> None:
    for path in [*model.rglob("*"), model]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(model.rglob("*"))
    opened = open_model(model)
    assert (opened.engine_directory() / "llm.pt").is_file()
    opened.flow_state()
    assert sorted(model.rglob("*")) == before
    for path in [model, *model.rglob("*")]:
        path.chmod(0o755)


def test_a_cache_that_cannot_be_written_is_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VLLM_COSYVOICE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="set VLLM_COSYVOICE_CACHE"):
        open_model(tiny_model).engine_directory()


def test_the_cache_follows_the_users_cache_directory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_COSYVOICE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert tmp_path / "user" / "vllm-cosyvoice" in open_model(tiny_model).engine_directory().parents


def test_makers_may_race(tiny_model: Path, cache: Path) -> None:
    together = threading.Barrier(8)

    def make(layers: int) -> None:
        together.wait()
        directory = engine_directory(
            tiny_model / "llm.pt", LanguageModelConfig(num_layers=layers), COSYVOICE2.architecture
        )
        assert json.loads((directory / "config.json").read_text())["num_hidden_layers"] == layers
        assert (directory / "llm.pt").is_file()

    with ThreadPoolExecutor(together.parties) as makers:
        list(makers.map(make, [number // together.parties for number in range(10 * together.parties)]))
    leftovers = {path.name for path in cache.rglob("*") if path.is_file() or path.is_symlink()}
    assert leftovers == {"config.json", "llm.pt"}
