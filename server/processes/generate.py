"""The generate process."""

import asyncio
import logging
import os
from typing import NoReturn

from server.processes.channel import Channel
from server.processes.messages import Ready
from server.processes.process import Settings, serve, step
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.llm.generator import EngineDeadError, EngineOptions, SpeechTokenGenerator
from vllm_cosyvoice.sampling import SamplingOptions
from vllm_cosyvoice.segment import Segment
from vllm_cosyvoice.stages.generate import GenerateStage
from vllm_cosyvoice.text import ArrivingText
from vllm_cosyvoice.text.tokenizer import load_tokenizer
from vllm_cosyvoice.vocabulary import prompt_ids

log = logging.getLogger(__name__)

WAITING_PER_SLOT = 4  # queued segments for each that vLLM runs at a time; more are refused


async def run(settings: Settings, channel: Channel) -> None:
    """Start vLLM, warm up, serve."""
    arguments = settings.arguments
    options = EngineOptions(
        data_type=arguments.data_type,
        max_total_token_num=arguments.max_total_token_num,
        max_req_total_len=arguments.max_req_total_len,
        max_num_seqs=arguments.gpt_paral_num,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
        gpu_memory_utilization=arguments.gpu_memory_utilization,
    )
    model = open_model(settings.model.path, arguments.llm_file)
    with step(settings, channel, "Starting vLLM"):
        generator = SpeechTokenGenerator(model, options, sockets=settings.run_directory, fork=True)
    arriving = ArrivingText(load_tokenizer(model.tokenizer, model.family.special_tokens))
    try:
        with step(settings, channel, "Generating first tokens"):
            await _warm_up(generator)
        stage = GenerateStage(channel, generator, arriving, arguments.gpt_paral_num * (1 + WAITING_PER_SLOT))
        channel.send(settings.supervisor, Ready(channel.address))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_end_with_engine(stage))
            tasks.create_task(serve(stage, channel))
    finally:
        generator.shutdown()


async def _end_with_engine(stage: GenerateStage) -> NoReturn:
    try:
        await stage.watch_engine()
    except EngineDeadError as error:
        log.critical("The language model's engine has died: %s", error)
        os._exit(1)  # vLLM takes long to stop


async def _warm_up(generator: SpeechTokenGenerator) -> None:
    segment = Segment(prompt_ids(text=[0]), text_tokens=1, min_tokens=2, max_tokens=20)
    async for _ in generator.generate("warm-up", segment, SamplingOptions(seed=0)):
        pass
