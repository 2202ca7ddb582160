"""The encode process."""

from server.processes.channel import Channel
from server.processes.messages import Ready
from server.processes.process import Settings, serve, step
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import DEFAULT_VOICE
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.stages.encode import EncodeStage


async def run(settings: Settings, channel: Channel) -> None:
    """Load the encoders, warm up, serve."""
    arguments = settings.arguments
    with step(settings, channel, "Loading the text front end and the voice encoder"):
        model = open_model(settings.model.path, arguments.llm_file)
        preparation = Preparation(
            model,
            arguments.voices_dir,
            arguments.cache_capacity,
            arguments.voice_aliases,
            arguments.pronunciations,
        )
    with step(settings, channel, "Preparing a first sentence"):
        preparation.prepare("Hello.", DEFAULT_VOICE)
    channel.send(settings.supervisor, Ready(channel.address))
    await serve(EncodeStage(channel, preparation, arguments.encode_paral_num), channel)
