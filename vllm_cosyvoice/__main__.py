"""Speak one text into a WAV file: `python -m vllm_cosyvoice "Hello world." -o hello.wav`."""

import argparse
import os
import sys
import time
import wave
from pathlib import Path

from vllm_cosyvoice.config import DEFAULT_MODEL, DEFAULT_VOICE, SAMPLE_RATE


def parse_arguments() -> argparse.Namespace:
    """The command line, checked for combinations that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m vllm_cosyvoice", description="Speak a text into a WAV file.")
    parser.add_argument("text")
    parser.add_argument("-o", "--output", type=Path, default=Path("out.wav"), help="default: %(default)s")
    parser.add_argument("--model_dir", default=DEFAULT_MODEL, help="directory or hub name (default: %(default)s)")
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    parser.add_argument("--voice", default=DEFAULT_VOICE, help="name of a voice (default: %(default)s)")
    parser.add_argument("--voices_dir", type=Path, help="directory of NAME.wav + NAME.txt pairs")
    parser.add_argument("--prompt_wav", type=Path, help="clone the voice of this recording, 1 to 30 s")
    parser.add_argument("--prompt_text", default="", help="what the recording says (without it: cross-lingual mode)")
    parser.add_argument("--instructions", help="how to speak, in words the model was trained on")
    parser.add_argument("--speed", type=float, default=1.0, help="0.25 to 4 (default: 1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same speech")
    arguments = parser.parse_args()
    if not 0.25 <= arguments.speed <= 4:
        parser.error(f"--speed is {arguments.speed}; it must lie between 0.25 and 4")
    if arguments.prompt_text and arguments.prompt_wav is None:
        parser.error("--prompt_text says what a recording says: give the recording with --prompt_wav")
    return arguments


def main() -> int:
    """Speak, save, and print how long it took."""
    arguments = parse_arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported
    # Here, because vLLM's processes import this module again, and because a wrong command line should fail at once.
    from vllm_cosyvoice.checkpoint import CheckpointError
    from vllm_cosyvoice.preparation import InputError
    from vllm_cosyvoice.sampling import SamplingOptions
    from vllm_cosyvoice.synthesizer import Synthesizer
    from vllm_cosyvoice.voice import AudioError, load_audio

    try:
        with Synthesizer(arguments.model_dir, hub=arguments.hub, voices_dir=arguments.voices_dir) as synthesizer:
            voice = arguments.voice
            if arguments.prompt_wav is not None:
                voice = synthesizer.clone(*load_audio(arguments.prompt_wav), arguments.prompt_text)
            started = time.perf_counter()
            audio = synthesizer.speak(
                arguments.text,
                voice,
                instructions=arguments.instructions,
                speed=arguments.speed,
                sampling=SamplingOptions(seed=arguments.seed),
            )
            elapsed = time.perf_counter() - started
    except (CheckpointError, InputError, AudioError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with wave.open(str(arguments.output), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(audio.tobytes())
    seconds = len(audio) / SAMPLE_RATE
    print(f"{arguments.output}: {seconds:.2f} s of audio in {elapsed:.2f} s (real-time factor {elapsed / seconds:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
