"""What distinguishes one generation of CosyVoice models from another, besides its sizes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vllm_cosyvoice.checkpoint.hyperyaml import HyperYaml
from vllm_cosyvoice.checkpoint.layout import Layout
from vllm_cosyvoice.config import LanguageModelConfig, ModelConfig


@dataclass(frozen=True)
class ModelFamily:
    """A generation of models. The rest of the engine asks it and does not know which one it serves.

    All families share the ids of `vocabulary`: their class in vLLM puts the rows of their tables into that order when
    it loads them. Their flow and vocoder follow from the class of their sizes.
    """

    name: str
    settings: str  # the YAML file that identifies the family
    speech_tokenizer: str  # ONNX file
    architecture: str  # class of the language model in vLLM, registered by `llm.registration`
    check: Callable[[HyperYaml], None]  # raises CheckpointError for settings that this engine can't run
    sizes: Callable[[HyperYaml, Iterable[str], LanguageModelConfig], ModelConfig]  # the names are those in flow.pt
    language_model_layout: Callable[[LanguageModelConfig], Layout]
    flow_layout: Callable[[ModelConfig], Layout]
    vocoder_layout: Callable[[ModelConfig], Layout]
    prompt_text: Callable[[str | None, str], str]  # of instructions and transcript: what precedes the text to speak
