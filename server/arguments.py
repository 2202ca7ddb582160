"""The command line: what each flag means, and which combinations are invalid."""

import argparse
import ipaddress
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from server.gpu_list import memory_of_gpus
from server.voice_aliases import VOICE_ALIASES, read_aliases
from server.word_table import read_word_table
from vllm_cosyvoice.config import DEMO_MODEL, LLM_FILE

PROGRAM = "python -m server"
LONGEST_SOCKET_PATH = 107  # bytes, the kernel's limit on a Unix socket's address
SHORTEST_FIRST_HOP = 9  # speech tokens: CosyVoice2's vocoder holds back the audio of 8
RUN_DIRECTORY_AND_SOCKET = 64  # bytes that a run directory and the longest socket name in it add to --zmq_mode


@dataclass(frozen=True)
class Arguments:
    """The parsed command line. Fields are named after the flags; of API keys, only digests are kept."""

    model_dir: str
    hub: str
    llm_file: str
    host: str
    port: int
    listen_when_ready: bool
    forwarded_allow_ips: tuple[str, ...]
    httpserver_workers: int
    encode_process_num: int
    decode_process_num: int | None
    decode_gpu: int
    encode_paral_num: int
    gpt_paral_num: int
    decode_paral_num: int | None
    first_hop_tokens: int | None
    flow_cache_gib: float | None
    full_attention: bool
    cache_capacity: int
    voices_dir: Path | None
    voice_aliases: Mapping[str, str]
    pronunciations: Mapping[str, str]
    ref_audio_hosts: tuple[str, ...]
    max_input_chars: int
    max_websockets: int
    websocket_timeout: int
    api_key_digests: tuple[str, ...]  # empty: no key is required
    public_paths: tuple[str, ...]
    cors_origins: tuple[str, ...]
    zmq_mode: str
    load_trt: bool
    mps: bool
    data_type: str
    max_total_token_num: int
    max_req_total_len: int
    max_num_batched_tokens: int | None
    gpu_memory_utilization: float | None


FLAGS = [field.name for field in fields(Arguments) if field.name != "api_key_digests"] + ["api_key", "api_key_file"]
ENVIRONMENT = "COSYVOICE_"
VARIABLES = {flag: ENVIRONMENT + flag.upper() for flag in FLAGS}
PUBLIC_PATHS = (
    *("/", "/docs", "/figures", "/openapi.json", "/health", "/healthz", "/liveness", "/readiness", "/metrics"),
    *("/v1/audio/voices", "/v1/audio/models"),  # Open WebUI asks for these without its key
)
UNNEEDED = {
    "tokenizer_mode": "the server always uses the fast tokenizer",
    "load_way": "there is only one way to load the model",
    "batch_max_tokens": "--max_num_batched_tokens sets the maximum number of tokens of one step",
    "running_max_req_size": "--gpt_paral_num sets how many segments are generated at a time",
    "gpt_paral_step_num": "vLLM schedules every step anew",
    "decode_max_batch_size": "--decode_paral_num sets the maximum number of streams in one decode call",
    "mode": "there is one choice of attention kernels",
    "trust_remote_code": "no code is loaded from the model directory",
    "disable_log_stats": "/metrics shows the load and nothing is logged",
    "log_stats_interval": "/metrics shows the load and nothing is logged",
    "router_token_ratio": "vLLM admits requests as its memory allows",
    "router_max_new_token_len": "vLLM admits requests as its memory allows",
    "router_max_wait_tokens": "a new request joins at the next step",
    "cache_reserved_ratio": "--cache_capacity sets how many voices are cached",
    "sample_close": "there is no separate sampling process",
    "health_monitor": "the supervisor always restarts processes that die",
    "disable_cudagraph": "a GPU always uses CUDA graphs",
    "graph_max_batch_size": "the sizes of CUDA graphs are fixed",
    "graph_max_len_in_batch": "the sizes of CUDA graphs are fixed",
    "load_jit": "there is no TorchScript encoder",
}
UNNEEDED_SWITCHES = {"trust_remote_code", "disable_log_stats", "sample_close", "health_monitor", "disable_cudagraph"}


def count_gpus() -> int:
    """Return the number of GPUs that CUDA may use here."""
    return len(memory_of_gpus())


class ArgumentsError(ValueError):
    """The arguments are invalid; the message gives the reason in one sentence."""


def parse(
    argv: Sequence[str], environment: Mapping[str, str] = os.environ, gpus: Callable[[], int] = count_gpus
) -> tuple[Arguments, list[str]]:
    """Like `read`, but invalid arguments end the program with status 2 and one sentence that gives the reason."""
    try:
        return read(argv, environment, gpus)
    except ArgumentsError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        sys.exit(2)


def read(
    argv: Sequence[str], environment: Mapping[str, str] = os.environ, gpus: Callable[[], int] = count_gpus
) -> tuple[Arguments, list[str]]:
    """Return the arguments, and a log line for each flag or variable that has no effect.

    Any flag can be set by a variable of `environment` instead: --port by COSYVOICE_PORT. The command line wins.

    Raises:
        ArgumentsError: the arguments are invalid.
    """
    parser = _parser()
    on_command_line = {argument.partition("=")[0] for argument in argv}
    parser.variables = {
        flag: variable
        for flag, variable in VARIABLES.items()
        if environment.get(variable) and f"--{flag}" not in on_command_line
    }
    from_environment = [f"--{flag}={environment[variable]}" for flag, variable in parser.variables.items()]
    given = vars(parser.parse_args([*from_environment, *argv]))
    notes = [f"--{flag} is not needed: {UNNEEDED[flag]}." for flag in UNNEEDED if given.pop(flag) is not None]
    unknown = sorted(name for name in environment if name.startswith(ENVIRONMENT) and name not in VARIABLES.values())
    notes += [f"{name} is set, but there is no flag --{name.removeprefix(ENVIRONMENT).lower()}." for name in unknown]
    keys = {key for keys in (*(given.pop("api_key") or ()), given.pop("api_key_file") or ()) for key in keys}
    arguments = Arguments(**given, api_key_digests=tuple(sorted(digest(key) for key in keys)))
    if reason := _contradiction(arguments, gpus):
        parser.error(reason)
    return arguments, notes


def digest(key: str) -> str:
    """Return the SHA-256 of an API key: it identifies the key, but a log or a dump can't reveal the key."""
    return sha256(key.encode()).hexdigest()


class _Parser(argparse.ArgumentParser):
    variables: Mapping[str, str] = {}  # flag → the variable that set it

    def error(self, message: str) -> NoReturn:
        for flag, variable in self.variables.items():
            message = re.sub(rf"--{flag}\b", variable, message)
        raise ArgumentsError(f"{message.rstrip('.')}.")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if "(default: " in (action.help or "") else super()._get_help_string(action)


def _parser() -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="Serve a CosyVoice model behind the OpenAI speech API.",
        epilog=f"Each flag can also be set by a variable: --port by {ENVIRONMENT}PORT. The command line wins.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--model_dir", default=str(DEMO_MODEL), help="model directory, or a hub's name for it (default: the demo model)"
    )
    add("--hub", choices=["huggingface", "modelscope"], default="huggingface", help="where a model's name is looked up")
    add("--llm_file", default=LLM_FILE, help="file of the language model in the model directory")
    add("--host", default="localhost", help="address to listen on")
    add("--port", type=_port, default=8080, help="port to listen on")
    add(
        "--listen_when_ready",
        type=_truth,
        default=False,
        help="listen only while the server can serve requests: for load balancers",
    )
    add(
        "--forwarded_allow_ips",
        type=_networks,
        default=("127.0.0.1",),
        help="proxies whose x-request-id and X-Forwarded-* are trusted: IP,… or NETWORK,… or * (default: 127.0.0.1)",
    )
    add("--httpserver_workers", type=count, default=1, help="HTTP processes, all listening on the port")
    add("--encode_process_num", type=count, default=1, help="processes that prepare text and voices")
    add(
        "--decode_process_num",
        type=count,
        help="processes that generate audio, spread over the GPUs (default: 2 on a GPU of 64 GiB or more, else 1)",
    )
    add("--decode_gpu", type=_index, default=0, help="GPU of the first decode process; the language model uses GPU 0")
    add("--encode_paral_num", type=count, default=50, help="requests an encode process holds before it refuses more")
    add("--gpt_paral_num", type=count, default=50, help="segments the language model generates at a time")
    add("--decode_paral_num", type=count, help="maximum streams in one decode call (default: 16 on a GPU, else 1)")
    add(
        "--first_hop_tokens",
        type=_first_hop,
        help="speech tokens, 25 a second, before the first audio (default: 10 to 25 by load on a GPU, else 25)",
    )
    add(
        "--flow_cache_gib",
        type=_gib,
        help="GiB for what the flow remembers of voices and streams (default: memory / 16; on a GPU half of the rest)",
    )
    add(
        "--full_attention",
        type=_truth,
        default=False,
        help="full attention for speech that is not streamed; then the flow remembers nothing of it",
    )
    add("--cache_capacity", type=count, default=200, help="voices kept in memory")
    add(
        "--voices_dir",
        type=_directory,
        help="directory of registered voices, and of your own NAME.wav with NAME.txt (default: in your cache)",
    )
    add(
        "--voice_aliases",
        type=read_aliases,
        default=VOICE_ALIASES,
        help='JSON file of aliases of voices, {"nova": "Anna", …} (default: OpenAI\'s names)',
    )
    add(
        "--pronunciations",
        type=read_word_table,
        default={},
        help='JSON file of words and their spelling for the model, {"nginx": "engine ex", …} (default: none)',
    )
    add("--ref_audio_hosts", type=_hosts, default=(), help="hosts from which ref_audio may be fetched: HOST[:PORT],…")
    add("--api_key", type=_keys, action="append", help="require one of these API keys: KEY,… (default: none)")
    add("--api_key_file", type=_key_file, help="file of API keys, one per line (default: none)")
    add("--public_paths", type=_paths, default=PUBLIC_PATHS, help="paths that can be read without a key: PATH,…")
    add(
        "--cors_origins",
        type=_origins,
        default=(),
        help="sites whose pages may send requests: https://HOST[:PORT],… or *",
    )
    add(
        "--max_input_chars",
        type=count,
        default=4096,
        help="maximum characters of an input, or of a streamed utterance",
    )
    add("--max_websockets", type=count, default=256, help="maximum open WebSockets of an HTTP process")
    add(
        "--websocket_timeout",
        type=count,
        default=60,
        help="seconds a WebSocket client may be silent, unless it is waiting for audio",
    )
    add(
        "--zmq_mode",
        type=_zmq_mode,
        default="ipc:///tmp/",
        help="how processes communicate: ipc://DIRECTORY/ or tcp://",
    )
    add("--load_trt", type=_truth, default=False, help="use TensorRT for the flow if it is installed")
    add("--mps", type=_truth, default=True, help="share the GPU through NVIDIA's Multi-Process Service if available")
    add("--data_type", choices=["auto", "float16", "bfloat16", "float32"], default="auto", help="dtype of the model")
    add("--max_total_token_num", type=count, default=65536, help="tokens that fit in the language model's KV cache")
    add("--max_req_total_len", type=count, default=32768, help="maximum tokens of one segment, prompt and speech")
    add(
        "--max_num_batched_tokens",
        type=count,
        help="maximum tokens the language model processes in one step (default: 2048 on a GPU)",
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
    return _misplaced(arguments, gpus)


def _misplaced(arguments: Arguments, gpus: Callable[[], int]) -> str | None:
    first, decoders = arguments.decode_gpu, arguments.decode_process_num or 1
    if first == 0 and decoders == 1:
        return None
    if (available := gpus()) == 0:
        flag = f"--decode_gpu {first}" if first else f"--decode_process_num {decoders}"
        return f"{flag} needs a GPU and CUDA finds none; on a CPU, one decode process uses all cores"
    if first >= available:
        return f"--decode_gpu {first} needs {first + 1} GPUs and CUDA finds {available}; the first GPU is number 0"
    return None


def count(text: str) -> int:
    """Read a whole number of at least 1 from a flag. Raises argparse.ArgumentTypeError."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _index(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _first_hop(text: str) -> int:
    value = count(text)
    if value < SHORTEST_FIRST_HOP:
        raise argparse.ArgumentTypeError(
            f"{text!r} tokens give no audio yet; use at least {SHORTEST_FIRST_HOP}, usually 10 to 25"
        )
    return value


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GiB; use 0 to remember nothing")
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
    raise argparse.ArgumentTypeError(f"{text!r} is not a boolean; use True or False")


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {text!r}")
    return path.resolve()


def _hosts(text: str) -> tuple[str, ...]:
    hosts = _list(text)
    for host in hosts:
        if not re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", host):
            raise argparse.ArgumentTypeError(f"{host!r} is not HOST or HOST:PORT; separate several with commas")
    return hosts


def _networks(text: str) -> tuple[str, ...]:
    networks = _list(text)
    for network in networks:
        try:
            if network != "*":
                ipaddress.ip_network(network)
        except ValueError as error:
            message = f"{network!r} is neither *, nor an IP address, nor a network like 10.0.0.0/8 ({error})"
            raise argparse.ArgumentTypeError(message) from error
    return networks


def _keys(text: str) -> list[str]:
    keys = text.replace(",", " ").split()
    if not keys:
        raise argparse.ArgumentTypeError("an API key is empty")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise argparse.ArgumentTypeError("an API key has characters that a header can't carry; use ASCII ones")
    return keys


def _key_file(text: str) -> list[str]:
    try:
        return _keys(Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be read ({error})") from error


def _paths(text: str) -> tuple[str, ...]:
    paths = _list(text)
    for path in paths:
        if not path.startswith("/"):
            raise argparse.ArgumentTypeError(f"{path!r} is not a path; a path must begin with /")
    return paths


def _origins(text: str) -> tuple[str, ...]:
    origins = _list(text)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise argparse.ArgumentTypeError(f"{origin!r} is neither * nor an origin like https://example.org")
    return origins


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _zmq_mode(text: str) -> str:
    if text == "tcp://":
        return text
    directory = text.removeprefix("ipc://")
    if directory == text or not Path(directory).is_absolute():
        raise argparse.ArgumentTypeError(f"{text!r} is neither tcp:// nor ipc:// with an absolute directory")
    if not Path(directory).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {directory!r} for the sockets")
    if len(directory.encode()) + RUN_DIRECTORY_AND_SOCKET > LONGEST_SOCKET_PATH:
        raise argparse.ArgumentTypeError(f"the path {directory!r} is too long for Unix sockets")
    return text
