"""Speaks the lines of a batch concurrently."""

import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, closing
from pathlib import Path

from tqdm import tqdm

from vllm_cosyvoice.audio_file import AudioFileFormat, audio_file
from vllm_cosyvoice.batch.line import Line, parse_lines
from vllm_cosyvoice.batch.manifest import Entry, Manifest
from vllm_cosyvoice.config import SAMPLE_RATE
from vllm_cosyvoice.synthesizer import Synthesizer
from vllm_cosyvoice.voice.feature_file import write_whole

LINES_IN_FLIGHT = 64  # more than the engine's batch, so that it never runs out of work


def run_batch(
    source: Path,
    directory: Path,
    *,
    voice: str,
    file_format: AudioFileFormat,
    model: str,
    open_synthesizer: Callable[[], AbstractContextManager[Synthesizer]],
) -> int:
    """Speak the lines of `source` into `directory`, except those that are already in its manifest.

    `voice` is used for lines without a voice, and `model` is the model's name in the manifest. The engine is started
    only if there is something to speak. Errors of lines are printed when they occur. Returns the number of errors.
    Raises OSError if a file can't be read or written.
    """
    lines, errors = parse_lines(source.read_bytes(), voice)
    for number, error in errors.items():
        _print_error(source, number, error)
    directory.mkdir(parents=True, exist_ok=True)
    with Manifest(directory) as manifest:
        todo = {
            number: line for number, line in lines.items() if not manifest.has(line, model, _file(line, file_format))
        }
        print(f"{source}: {len(todo)} lines to speak, {len(lines) - len(todo)} spoken before, {len(errors)} invalid")
        if not todo:
            return len(errors)
        with (
            open_synthesizer() as synthesizer,
            closing(speak_lines(synthesizer, todo, directory, file_format)) as results,
            tqdm(total=len(todo), unit=" lines", disable=None) as bar,
        ):
            audio_seconds, started = 0.0, time.perf_counter()
            for number, result in results:
                if isinstance(result, ValueError):
                    errors[number] = str(result)
                    _print_error(source, number, errors[number])
                else:
                    manifest.add(Entry.of(lines[number], model, _file(lines[number], file_format), result))
                    audio_seconds += result
                elapsed = time.perf_counter() - started
                bar.set_postfix_str(f"{audio_seconds / elapsed:.1f} s of audio a second")
                bar.update()
        manifest.sort([line.id for line in lines.values()])
    print(
        f"{directory}: {audio_seconds:.2f} s of audio in {elapsed:.2f} s "
        f"({audio_seconds / elapsed:.1f} s of audio a second), {len(errors)} lines not spoken"
    )
    return len(errors)


def speak_lines(
    synthesizer: Synthesizer, lines: dict[int, Line], directory: Path, file_format: AudioFileFormat
) -> Generator[tuple[int, float | ValueError], None, None]:
    """Speak all `lines`, given by their numbers, and write each to its file in `directory`.

    Yields the number of each finished line with the seconds of its audio, or with its error. Other errors are raised.
    Closing the generator cancels the lines that have not started.
    """
    threads = ThreadPoolExecutor(LINES_IN_FLIGHT, thread_name_prefix="line")
    try:
        jobs = {
            threads.submit(_speak, synthesizer, line, directory / _file(line, file_format), file_format): number
            for number, line in lines.items()
        }
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _speak(synthesizer: Synthesizer, line: Line, path: Path, file_format: AudioFileFormat) -> float | ValueError:
    try:
        audio = synthesizer.audio_of(line.request())
    except ValueError as error:
        return error
    write_whole(path, audio_file(audio, file_format))
    return round(len(audio) / SAMPLE_RATE, 3)


def _file(line: Line, file_format: AudioFileFormat) -> str:
    return f"{line.id}.{file_format}"


def _print_error(source: Path, number: int, error: str) -> None:
    """Print an error in the format of compilers, above the progress bar."""
    tqdm.write(f"{source}:{number}: {error}", file=sys.stderr)
