"""The decode process."""

import asyncio
import logging
import os
import sys
from typing import NoReturn

import numpy as np
import torch

from server.processes.channel import Channel
from server.processes.messages import Ready
from server.processes.process import Settings, serve, step
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.config import SPEAKER_DIM
from vllm_cosyvoice.decode.decoder import SpeechDecoder, needed_gib
from vllm_cosyvoice.decode.loop import DecodeLoop
from vllm_cosyvoice.decode.utterance import Utterance
from vllm_cosyvoice.gpu.device import GpuMemoryError, UnsupportedGpuError
from vllm_cosyvoice.recording import Voice
from vllm_cosyvoice.stages.decode import DecodeStage

log = logging.getLogger(__name__)

WARM_UP_TOKENS = 60  # several hops
LONGEST_CALL = 60.0  # seconds of a decode call on a GPU before the device counts as hung; normal calls take up to 1 s


async def run(settings: Settings, channel: Channel) -> None:
    """Load the decoder, warm up, serve."""
    arguments = settings.arguments
    try:
        with step(settings, channel, "Loading the flow and the vocoder"):
            model = open_model(settings.model.path, arguments.llm_file)
            decoder = SpeechDecoder(
                model,
                "auto",
                arguments.data_type,
                load_trt=arguments.load_trt,
                flow_cache_gib=arguments.flow_cache_gib,
                others_gib=needed_gib(model, arguments.max_total_token_num, arguments.gpu_memory_utilization),
                decoders=settings.decoders,
                full_attention=arguments.full_attention,
            )
        with step(settings, channel, "Decoding first audio"):
            _warm_up(decoder)
    except (UnsupportedGpuError, GpuMemoryError) as error:
        sys.exit(f"{settings.name}: {error}.")
    except torch.OutOfMemoryError as error:
        sys.exit(f"{settings.name}: the GPU's memory is full: free it, or choose {_smaller(settings)} ({error})")
    loop = DecodeLoop(decoder, arguments.decode_paral_num)
    stage = DecodeStage(
        channel, decoder, loop, arguments.cache_capacity, arguments.first_hop_tokens or decoder.usual_first_hop
    )
    channel.send(settings.supervisor, Ready(channel.address))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(loop.run())
        tasks.create_task(serve(stage, channel))
        tasks.create_task(stage.watch_device())
        if decoder.device.type == "cuda":
            tasks.create_task(_watch(loop))


def _smaller(settings: Settings) -> str:
    flags = "a smaller --flow_cache_gib or --max_total_token_num"
    return flags if settings.decoders == 1 else f"--decode_process_num 1, {flags}"


async def _watch(loop: DecodeLoop) -> NoReturn:
    """End this process when the device hangs: the event loop would still answer pings."""
    while True:
        await asyncio.sleep(1.0)
        if loop.seconds_in_call > LONGEST_CALL:
            log.critical("A decode call has not returned after %.0f s.", LONGEST_CALL)
            os._exit(1)  # because an exception would wait for the call


def _warm_up(decoder: SpeechDecoder) -> None:
    voice = Voice.preset("warm-up", np.ones(SPEAKER_DIM, np.float32))
    utterance = decoder.begin(Utterance(), decoder.prompt(voice))
    utterance.push([0] * WARM_UP_TOKENS)
    utterance.finish()
    while cut := utterance.next_cut():
        decoder.decode([(utterance, cut)])
