"""The engine with its stages on one event loop of this process; only vLLM's engine has a process of its own."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.engine import Engine
from vllm_cosyvoice.failure import Failure
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
    """Hands messages over in the order they were sent, each in a turn of its own."""

    def __init__(self, address: Address, stages: dict[Address, _Stage], die: Callable[[str, Exception], None]) -> None:
        """`die` is told of a stage that can't handle a message."""
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
    """One stage of each kind, whose address is its kind; or why there is none any more."""

    failure: Failure | None = None

    def pick(self, kind: StageKind) -> Address:
        if self.failure:
            raise Failure(self.failure.kind, str(self.failure))
        return kind

    def busy(self, address: Address) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class LocalEngine(Engine):
    """An Engine with the stages within. It belongs to the event loop that it is made on."""

    def __init__(self, model: ModelDirectory, voices_dir: Path | None, options: EngineOptions) -> None:
        """Load and start everything. Raises what Preparation, SpeechDecoder and SpeechTokenGenerator raise."""
        stages: dict[Address, _Stage] = {}
        self._within = _Stages()
        super().__init__(_Post("engine", stages, self._die), self._within, patience=None)
        self.preparation = Preparation(model, voices_dir)
        decoder = SpeechDecoder(model)
        arriving = ArrivingText(load_tokenizer(model.tokenizer))
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
        """Segments that a stage holds."""
        return self._generate.numbers()["segments"] + self._decode.numbers()["segments"]

    def shutdown(self) -> None:
        """End vLLM's engine. Cancel what still waits for speech before."""
        self._generator.shutdown()

    async def _watch(self, what: str, work: Coroutine[None, None, object]) -> None:
        """Nobody is to wait for a stage that has died."""
        try:
            await work
        except Exception as error:
            self._die(what, error)

    def _die(self, what: str, error: Exception) -> None:
        log.error("The %s has died.", what, exc_info=error)
        self._within.failure = Failure("unavailable", f"The {what} has died: {error}")
        self.in_flight.fail_all(self._within.failure)
