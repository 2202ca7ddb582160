"""The command line: what each flag means, and which combinations make no sense."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LONGEST_SOCKET_PATH = 107  # bytes, the kernel's limit on a Unix socket's address
SHORTEST_FIRST_HOP = 9  # speech tokens: the vocoder holds back the audio of 8
RUN_DIRECTORY_AND_SOCKET = 64  # bytes that a run directory and the longest socket name in it add to --zmq_mode


@dataclass(frozen=True)
class Arguments:
    """The parsed command line; field names are the flags'."""

    model_dir: str
    hub: str
    host: str
    port: int
    httpserver_workers: int
    encode_process_num: int
    decode_process_num: int
    encode_paral_num: int
    gpt_paral_num: int
    decode_paral_num: int | None
    first_hop_tokens: int | None
    cache_capacity: int
    voices_dir: Path | None
    zmq_mode: str
    load_trt: bool
    data_type: str
    max_total_token_num: int
    max_req_total_len: int
    max_num_batched_tokens: int | None
    gpu_memory_utilization: float | None


UNNEEDED = {
    "tokenizer_mode": "the model's tokenizer is always the fast one",
    "load_way": "there is one way to load the model",
    "batch_max_tokens": "--max_num_batched_tokens sets the most tokens of one step",
    "running_max_req_size": "--gpt_paral_num sets how many segments are generated at a time",
    "gpt_paral_step_num": "vLLM schedules every step anew",
    "decode_max_batch_size": "--decode_paral_num sets how many streams one decode call takes",
    "mode": "vLLM picks the attention kernels",
    "trust_remote_code": "no code is taken from the model directory",
    "disable_log_stats": "/metrics shows the load and nothing is logged",
    "log_stats_interval": "/metrics shows the load and nothing is logged",
    "router_token_ratio": "vLLM admits requests as its memory allows",
    "router_max_new_token_len": "vLLM admits requests as its memory allows",
    "router_max_wait_tokens": "a new request joins at the next step",
    "cache_reserved_ratio": "voices are cached whole, --cache_capacity says how many",
    "sample_close": "there is no separate sampling process",
    "health_monitor": "the supervisor restarts what dies",
    "disable_cudagraph": "vLLM decides about CUDA graphs",
    "graph_max_batch_size": "vLLM picks the sizes of its CUDA graphs",
    "graph_max_len_in_batch": "vLLM picks the sizes of its CUDA graphs",
    "load_jit": "there is no TorchScript encoder",
}
UNNEEDED_SWITCHES = {"trust_remote_code", "disable_log_stats", "sample_close", "health_monitor", "disable_cudagraph"}


def count_gpus() -> int:
    """CUDA devices of this machine."""
    import torch  # seconds to import, and only several decode processes need the answer

    return torch.cuda.device_count()


def parse(argv: Sequence[str], gpus: Callable[[], int] = count_gpus) -> tuple[Arguments, list[str]]:
    """The arguments, and a line for each flag of LightTTS that was given and is not needed here.

    Whatever makes no sense ends the program with status 2 and one sentence that says why.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv))
    notes = [f"--{flag} is not needed: {UNNEEDED[flag]}." for flag in UNNEEDED if given.pop(flag) is not None]
    arguments = Arguments(**given)
    if reason := _contradiction(arguments, gpus):
        parser.error(reason)
    return arguments, notes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.rstrip('.')}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m server",
        description="Serve a CosyVoice2 model behind the OpenAI speech API.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_dir", required=True, help="model directory, or a hub's name for it")
    add("--hub", choices=["huggingface", "modelscope"], default="huggingface", help="where a model's name is looked up")
    add("--host", default="localhost", help="address to listen on")
    add("--port", type=_port, default=8080, help="port to listen on")
    add("--httpserver_workers", type=_count, default=1, help="http processes, all listening on the port")
    add("--encode_process_num", type=_count, default=1, help="processes that prepare text and voices")
    add("--decode_process_num", type=_count, default=1, help="processes that make audio, each on a GPU of its own")
    add("--encode_paral_num", type=_count, default=50, help="requests an encode process holds before it refuses more")
    add("--gpt_paral_num", type=_count, default=50, help="segments the language model generates at a time")
    add("--decode_paral_num", type=_count, help="streams that one decode call takes (default: 16 on a GPU, else 1)")
    add(
        "--first_hop_tokens",
        type=_first_hop,
        help="speech tokens, 25 a second, after which the first audio comes (default: 15 on a GPU, else 25)",
    )
    add("--cache_capacity", type=_count, default=200, help="voices kept in memory")
    add("--voices_dir", type=_directory, help="directory of your own voices: NAME.wav with its transcript NAME.txt")
    add("--zmq_mode", type=_zmq_mode, default="ipc:///tmp/", help="how processes talk: ipc://DIRECTORY/ or tcp://")
    add("--load_trt", type=_truth, default=False, help="use TensorRT for the flow if it is installed")
    add(
        "--data_type", choices=["auto", "float16", "bfloat16", "float32"], default="auto", help="precision of the model"
    )
    add("--max_total_token_num", type=_count, default=65536, help="tokens that fit in the language model's KV cache")
    add("--max_req_total_len", type=_count, default=32768, help="most tokens of one segment, prompt and speech")
    add(
        "--max_num_batched_tokens",
        type=_count,
        help="most tokens the language model reads in one step (default: vLLM's)",
    )
    add("--gpu_memory_utilization", type=_fraction, help="share of the GPU's memory for vLLM (default: what it needs)")
    for flag in UNNEEDED:
        if flag in UNNEEDED_SWITCHES:
            add(f"--{flag}", action="store_true", default=None, help=argparse.SUPPRESS)
        else:
            add(f"--{flag}", nargs="+", help=argparse.SUPPRESS)
    return parser


def _contradiction(arguments: Arguments, gpus: Callable[[], int]) -> str | None:
    if arguments.max_req_total_len > arguments.max_total_token_num:
        return (
            f"--max_req_total_len {arguments.max_req_total_len} does not fit into "
            f"--max_total_token_num {arguments.max_total_token_num}; lower the first or raise the second"
        )
    if arguments.max_num_batched_tokens is not None and arguments.max_num_batched_tokens < arguments.gpt_paral_num:
        return (
            f"--max_num_batched_tokens {arguments.max_num_batched_tokens} is less than one token for each of "
            f"--gpt_paral_num {arguments.gpt_paral_num} segments; raise the first or lower the second"
        )
    if arguments.decode_process_num > 1 and arguments.decode_process_num > (found := gpus()):
        return (
            f"--decode_process_num {arguments.decode_process_num} needs as many GPUs and this machine has {found}; "
            "one decode process serves many streams"
        )
    return None


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _first_hop(text: str) -> int:
    value = _count(text)
    if value < SHORTEST_FIRST_HOP:
        raise argparse.ArgumentTypeError(
            f"{text!r} tokens would be held back by the vocoder; choose {SHORTEST_FIRST_HOP} at least, usually 10 to 25"
        )
    return value


def _port(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return value


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and up to 1")
    return value


def _truth(text: str) -> bool:
    match text.lower():
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false; say True or False")


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {text!r}")
    return path.resolve()


def _zmq_mode(text: str) -> str:
    if text == "tcp://":
        return text
    directory = text.removeprefix("ipc://")
    if directory == text or not Path(directory).is_absolute():
        raise argparse.ArgumentTypeError(f"{text!r} is neither tcp:// nor ipc:// with an absolute directory")
    if not Path(directory).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {directory!r} for the sockets")
    if len(directory.encode()) + RUN_DIRECTORY_AND_SOCKET > LONGEST_SOCKET_PATH:
        raise argparse.ArgumentTypeError(f"{directory!r} is too long a path for Unix sockets")
    return text
