"""An engine that runs its stages on one event loop in this process. Only vLLM's engine has a separate process."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.decode.decoder import SpeechDecoder, needed_gib
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.failure import Failure
from vllm_cosyvoice.llm.environment import THREADS
from vllm_cosyvoice.llm.generator import EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.stages.decode import DecodeStage
from vllm_cosyvoice.stages.encode import EncodeStage
from vllm_cosyvoice.stages.generate import GenerateStage
from vllm_cosyvoice.stages.messages import Address, Message, StageKind
from vllm_cosyvoice.text import ArrivingText
from vllm_cosyvoice.text.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

VOICES_ON_THE_DEVICE = 200


class _Stage(Protocol):
    def handle(self, message: Message) -> None: ...


class _Post:
    """Delivers messages in the order they were sent, each in its own callback of the event loop."""

    def __init__(self, address: Address, stages: dict[Address, _Stage], die: Callable[[str, Exception], None]) -> None:
        """`die` is called with the address of a stage that fails to handle a message, and the error."""
        self.address = address
        self._stages = stages
        self._die = die

    def send(self, to: Address, message: Message) -> None:
        asyncio.get_running_loop().call_soon(self._hand_over, to, message)

    def is_dead(self, address: Address) -> bool:
        return False

    def _hand_over(self, to: Address, message: Message) -> None:
        try:
            self._stages[to].handle(message)
        except Exception as error:
            self._die(to, error)


class _Stages:
    """One stage of each kind, with the kind as its address, until one of them fails."""

    failure: Failure | None = None

    def using(self, kind: StageKind) -> AbstractContextManager[Address]:
        if self.failure:
            raise Failure(self.failure.kind, str(self.failure))
        return contextlib.nullcontext(kind)


class LocalEngine(Engine):
    """An Engine that contains its stages. Use it on the event loop on which it was created."""

    def __init__(
        self,
        model: ModelDirectory,
        voices_dir: Path | None,
        options: EngineOptions,
        *,
        flow_cache_gib: float | None = None,
        full_attention: bool = False,
    ) -> None:
        """Load and start everything. Raises the errors of Preparation, SpeechDecoder and SpeechTokenGenerator.

        flow_cache_gib, full_attention: see `SpeechDecoder`.
        """
        stages: dict[Address, _Stage] = {}
        self._within = _Stages()
        super().__init__(_Post("engine", stages, self._die), self._within, patience=None)
        self.preparation = Preparation(model, voices_dir)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(min(torch.get_num_threads(), THREADS))
        decoder = SpeechDecoder(
            model,
            flow_cache_gib=flow_cache_gib,
            others_gib=needed_gib(model, options.max_total_token_num, options.gpu_memory_utilization),
            full_attention=full_attention,
        )
        arriving = ArrivingText(load_tokenizer(model.tokenizer, model.family.special_tokens))
        self._generator = SpeechTokenGenerator(model, options)
        decode_loop = DecodeLoop(decoder)
        self._encode = EncodeStage(_Post("encode", stages, self._die), self.preparation)
        self._generate = GenerateStage(_Post("generate", stages, self._die), self._generator, arriving)
        self._decode = DecodeStage(
            _Post("decode", stages, self._die), decoder, decode_loop, VOICES_ON_THE_DEVICE, decoder.usual_first_hop
        )
        stages |= {"engine": self, "encode": self._encode, "generate": self._generate, "decode": self._decode}
        self._watching = [
            asyncio.create_task(self._watch("decoder", decode_loop.run())),
            asyncio.create_task(self._watch("decoder", self._decode.watch_device())),
            asyncio.create_task(self._watch("language model", self._generate.watch_engine())),
        ]

    @property
    def segments(self) -> int:
        """Number of segments in the stages."""
        return self._generate.numbers()["segments"] + self._decode.numbers()["segments"]

    def shutdown(self) -> None:
        """Stop vLLM's engine. Before calling this, cancel the tasks that wait for speech."""
        self._generator.shutdown()

    async def _watch(self, stage: str, work: Coroutine[None, None, object]) -> None:
        """Run `work`; if it fails, fail all requests, so that none waits for a dead stage."""
        try:
            await work
        except Exception as error:
            self._die(stage, error)

    def _die(self, stage: str, error: Exception) -> None:
        log.error("The %s has died.", stage, exc_info=error)
        self._within.failure = Failure("unavailable", f"The {stage} has died: {error}")
        self.in_flight.fail_all(self._within.failure)
