"""The command `vllm-cosyvoice`, also `python -m vllm_cosyvoice`.

`vllm-cosyvoice speak "Hello world." -o hello.wav`     one text; `speak` is the default command
`vllm-cosyvoice batch lines.jsonl out/`                many texts
`vllm-cosyvoice serve --port 8080`                     the server, like `python -m server`
`vllm-cosyvoice normalize "It costs $5."`              the normalised text, one line per segment
"""

import argparse
import atexit
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vllm_cosyvoice.config import DEFAULT_VOICE, DEMO_MODEL, LLM_FILE, SAMPLE_RATE
from vllm_cosyvoice.limits import SPEEDS

if TYPE_CHECKING:
    from vllm_cosyvoice.checkpoint import ModelDirectory
    from vllm_cosyvoice.text import TextFrontEnd

PROGRAM = "vllm-cosyvoice"
COMMANDS = ("speak", "batch", "serve", "normalize")


def parse_speak(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check the command line for one text."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} speak",
        description="Speak a text into a WAV or FLAC file.",
        epilog=f"Other commands: {', '.join(name for name in COMMANDS if name != 'speak')}; each has --help.",
    )
    parser.add_argument("text")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.wav"), help="default: %(default)s")
    _add_model_and_voice(parser)
    parser.add_argument("--prompt_wav", type=Path, help="clone the voice of this recording, 1 to 30 s")
    parser.add_argument("--prompt_text", default="", help="transcript of the recording (if omitted: cross-lingual)")
    parser.add_argument("--instructions", help="how to speak, in words the model was trained on")
    parser.add_argument("--speed", type=float, default=1.0, help="0.25 to 4 (default: 1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same speech")
    arguments = parser.parse_args(argv)
    if arguments.output.suffix not in (".wav", ".flac"):
        parser.error(f"--output is {arguments.output}; its name must end in .wav or .flac")
    if not arguments.output.parent.is_dir():
        parser.error(f"--output is {arguments.output}, but there is no directory {arguments.output.parent}")
    slowest, fastest = SPEEDS
    if not slowest <= arguments.speed <= fastest:
        parser.error(f"--speed is {arguments.speed}; it must be between {slowest} and {fastest:g}")
    if arguments.prompt_text and arguments.prompt_wav is None:
        parser.error("--prompt_text is the transcript of a recording: give the recording with --prompt_wav")
    return arguments


def parse_batch(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line for many texts."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} batch",
        description="Speak each line of a file into its own audio file. Lines that were spoken before are skipped.",
    )
    parser.add_argument("lines", type=Path, help='a JSON object per line: {"text": …, "voice": …, "speed": …}')
    parser.add_argument("directory", type=Path, help="output directory for ID.wav or ID.flac and manifest.jsonl")
    parser.add_argument("--format", choices=("wav", "flac"), default="wav", help="default: %(default)s")
    parser.add_argument("--full_attention", action="store_true", help="see docs/flags.md")
    _add_model_and_voice(parser)
    return parser.parse_args(argv)


def parse_normalize(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line for texts that are printed, not spoken."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} normalize",
        description="Print a text as it would be spoken, one line per segment, with the pauses between segments.",
    )
    parser.add_argument("text", nargs="?", help="not with --jsonl")
    parser.add_argument("--language", help='a code such as "en" (default: detected from the script and the words)')
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help='read one JSON object per line from standard input, {"id": …, "input": …, "language": …}, '
        'and write {"id": …, "segments": […]} for each; "language" is optional',
    )
    _add_model(parser)
    arguments = parser.parse_args(argv)
    if arguments.jsonl == (arguments.text is not None):
        parser.error("give either a text or --jsonl")
    return arguments


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_dir", default=str(DEMO_MODEL), help="directory or hub name (default: the demo model)")
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    parser.add_argument("--llm_file", default=LLM_FILE, help="the language model's file in it (default: %(default)s)")


def _add_model_and_voice(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--voice", default=DEFAULT_VOICE, help="name of a voice (default: %(default)s)")
    parser.add_argument("--voices_dir", type=Path, help="directory of NAME.wav + NAME.txt pairs")


def speak(argv: Sequence[str]) -> int:
    """Speak, save, and print how long it took."""
    arguments = parse_speak(argv)
    # Imported late, because vLLM's processes import this module again, and a wrong command line should fail at once.
    from vllm_cosyvoice.audio_file import audio_file
    from vllm_cosyvoice.preparation import check_voice
    from vllm_cosyvoice.sampling import SamplingOptions
    from vllm_cosyvoice.voice import load_audio
    from vllm_cosyvoice.voice.prompt import prompt_part

    recording = load_audio(arguments.prompt_wav) if arguments.prompt_wav else None
    if recording is not None:
        prompt_part(*recording, arguments.prompt_text)
    model = _open_model(arguments)
    if recording is None:
        check_voice(arguments.voice, model, arguments.voices_dir)
    from vllm_cosyvoice.synthesizer import Synthesizer  # imports vLLM

    with Synthesizer(model, voices_dir=arguments.voices_dir) as synthesizer:
        voice = synthesizer.clone(*recording, arguments.prompt_text) if recording else arguments.voice
        started = time.perf_counter()
        audio = synthesizer.speak(
            arguments.text,
            voice,
            instructions=arguments.instructions,
            speed=arguments.speed,
            sampling=SamplingOptions(seed=arguments.seed),
        )
        elapsed = time.perf_counter() - started
    arguments.output.write_bytes(audio_file(audio, arguments.output.suffix.removeprefix(".")))
    seconds = len(audio) / SAMPLE_RATE
    print(f"{arguments.output}: {seconds:.2f} s of audio in {elapsed:.2f} s (real-time factor {elapsed / seconds:.2f})")
    return 0


def batch(argv: Sequence[str]) -> int:
    """Speak the lines that were not spoken before; return 1 if any could not be spoken."""
    arguments = parse_batch(argv)
    from vllm_cosyvoice.preparation import check_voice

    model = _open_model(arguments)
    check_voice(arguments.voice, model, arguments.voices_dir)
    from vllm_cosyvoice.batch.run import run_batch
    from vllm_cosyvoice.synthesizer import Synthesizer

    errors = run_batch(
        arguments.lines,
        arguments.directory,
        voice=arguments.voice,
        file_format=arguments.format,
        model=Path(arguments.model_dir).resolve().name,
        open_synthesizer=partial(
            Synthesizer, model, voices_dir=arguments.voices_dir, full_attention=arguments.full_attention
        ),
    )
    return 1 if errors else 0


def normalize(argv: Sequence[str]) -> int:
    """Print the segments of a text or of each line of standard input; return 1 if one is empty or invalid."""
    arguments = parse_normalize(argv)
    from vllm_cosyvoice.failure import InputError
    from vllm_cosyvoice.text import Pause, TextFrontEnd

    model = _open_model(arguments)
    front_end = TextFrontEnd(model.tokenizer, special_tokens=model.family.special_tokens)
    if arguments.jsonl:
        return _normalize_lines(front_end, arguments.language)
    try:
        pieces = front_end.pieces(arguments.text, language=arguments.language)
    except ValueError as error:
        raise InputError("text", str(error)) from error
    print(*(f"[pause:{piece.seconds:g}s]" if isinstance(piece, Pause) else piece for piece in pieces), sep="\n")
    return 0


def _normalize_lines(front_end: "TextFrontEnd", language: str | None) -> int:
    """Print an answer for each line of standard input, with an `error` if the line has no segments."""
    status = 0
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        answer: dict[str, object] = {"id": number}
        try:
            item = dict(json.loads(line))
            answer["id"] = item["id"]
            answer["segments"] = front_end.segments(item["input"], language=item.get("language") or language)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"the line has no {error}" if isinstance(error, KeyError) else str(error)
            answer |= {"segments": [], "error": reason}
            status = 1
        print(json.dumps(answer, ensure_ascii=False), flush=True)
    return status


def _open_model(arguments: argparse.Namespace) -> "ModelDirectory":
    from vllm_cosyvoice.checkpoint import find, open_model

    return open_model(find(arguments.model_dir, arguments.hub, arguments.llm_file), arguments.llm_file)


def main() -> int:
    """Run a command. Exit status: 0 for success, 1 for errors, 2 for an invalid command line, 130 for Ctrl-C."""
    name, argv = (sys.argv[1], sys.argv[2:]) if sys.argv[1:2] and sys.argv[1] in COMMANDS else ("speak", sys.argv[1:])
    if name == "serve":
        from server.__main__ import main as serve

        return serve(argv)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported
    from vllm_cosyvoice.checkpoint import CheckpointError
    from vllm_cosyvoice.failure import Failure
    from vllm_cosyvoice.gpu.device import GpuMemoryError, UnsupportedGpuError
    from vllm_cosyvoice.voice import AudioError

    try:
        return {"speak": speak, "batch": batch, "normalize": normalize}[name](argv)
    except (CheckpointError, Failure, AudioError, GpuMemoryError, UnsupportedGpuError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def run() -> NoReturn:
    """Run a command and end at once: Python would take two more seconds to destroy the modules of vLLM and PyTorch."""
    status = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
