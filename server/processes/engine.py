"""The engine of an http worker. Its stages are processes that may die and restart; it measures what it does."""

from collections.abc import AsyncGenerator, AsyncIterator

from server.http.audio_format import Encoder
from server.observe.delivery import Answers, Speeches, note
from server.observe.metrics import Numbers
from server.processes.channel import Channel
from server.processes.messages import Address, AnyMessage, Pong, StageUp
from server.processes.stage_registry import Stages
from vllm_cosyvoice.engine import Engine, Usage
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.stages.messages import Message

PATIENCE = 590.0  # seconds that a request waits for a stage; OpenAI's client gives up after 600 s without a byte


class StagedEngine(Engine):
    """An Engine over the processes that are up."""

    def __init__(self, channel: Channel, patience: float = PATIENCE, worker: int = 0) -> None:
        """`patience`: see Engine; `worker`: see `Stages`."""
        self.stages = Stages(channel, worker)
        self.speeches = Speeches()
        self.answers = Answers()
        self._channel = channel
        super().__init__(channel, self.stages, patience)

    def speak(  # noqa: D102 - see Engine
        self, request: SpeechRequest, arriving: AsyncIterator[str] | None = None, usage: Usage | None = None
    ) -> AsyncGenerator[bytes, None]:
        note(request)
        return self.speeches.measure(super().speak(request, arriving, usage))

    def convert(self, request: SpeechRequest, audio: bytes) -> AsyncGenerator[bytes, None]:  # noqa: D102 - see Engine
        note(request)
        return self.speeches.measure(super().convert(request, audio))

    async def check_voice(self, request_id: str, voice: str | Recording) -> None:  # noqa: D102 - see Engine
        note(SpeechRequest(id=request_id, voice=voice))
        await super().check_voice(request_id, voice)

    def handle(self, message: AnyMessage | Message) -> None:  # noqa: D102 - see Engine
        match message:
            case StageUp() if not self._channel.is_dead(message.address):
                self.stages.add(message)
            case Pong():
                self.stages.answered(message)
            case _:
                super().handle(message)

    def drop(self, address: Address) -> None:
        """Forget a dead process and fail its requests."""
        self.stages.drop(address, self.in_flight)

    def numbers(self) -> Numbers:  # noqa: D102 - see Stage
        return {
            **self.speeches.numbers(),
            **self.answers.numbers(),
            "encoders": len(Encoder.unclosed),
            **self.in_flight.numbers(),
        }
