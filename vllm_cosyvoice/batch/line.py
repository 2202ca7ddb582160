"""Parses the lines of a batch, one JSON object each."""

import re
import uuid

import msgspec

from vllm_cosyvoice.request import SpeechRequest
from vllm_cosyvoice.sampling import SamplingOptions

ID = re.compile(r"[^\W_][\w. -]{0,59}")  # a file name of at most 240 bytes, without the suffix
ID_DIGITS = 6  # of the line number that is the default id; the padding makes files sort like the lines


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The text of a line and its options. See SpeechRequest and SamplingOptions for the fields."""

    id: str = ""
    text: str
    voice: str = ""
    instructions: str | None = None
    cross_lingual: bool = False
    language: str | None = None
    normalize: bool = True
    pronunciations: dict[str, str] = {}
    speed: float = 1.0
    seed: int | None = None
    temperature: float = SamplingOptions.temperature
    top_p: float = SamplingOptions.top_p
    top_k: int = SamplingOptions.top_k
    repetition_aware: bool = SamplingOptions.repetition_aware
    min_tokens: int | None = None
    max_tokens: int | None = None

    def request(self) -> SpeechRequest:
        """Build the engine's request. Raises InputError for an invalid value."""
        return SpeechRequest(
            id=uuid.uuid4().hex,
            text=self.text,
            voice=self.voice,
            instructions=self.instructions,
            cross_lingual=self.cross_lingual,
            language=self.language,
            normalize=self.normalize,
            pronunciations=self.pronunciations,
            speed=self.speed,
            sampling=SamplingOptions.of(self),
            streaming=False,
        )


OPTIONAL = [field for field in Line.__struct_fields__ if field != "text"]


def parse_lines(data: bytes, voice: str) -> tuple[dict[int, Line], dict[int, str]]:
    """Parse a JSONL file into its valid lines and the errors of the others, both by line number, from 1.

    Blank lines are skipped. A line without an id gets its line number as id, a line without a voice gets `voice`.
    """
    lines: dict[int, Line] = {}
    errors: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for number, content in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not content.strip():
            continue
        try:
            line = _parse(content, number, voice)
            if (first := numbers.setdefault(line.id, number)) != number:
                raise ValueError(f"the id {line.id!r} is already used in line {first}: give each line its own")
        except ValueError as error:
            errors[number] = str(error)
        else:
            lines[number] = line
    return lines, errors


def _parse(content: bytes, number: int, voice: str) -> Line:
    try:
        line = msgspec.json.decode(content.decode(), type=Line)
    except UnicodeDecodeError as error:
        raise ValueError(f"the line is not UTF-8: save the file in that encoding ({error})") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}; a line is an object with text and, optionally, {', '.join(OPTIONAL)}") from error
    line = msgspec.structs.replace(line, id=line.id or f"{number:0{ID_DIGITS}}", voice=line.voice or voice)
    if not ID.fullmatch(line.id):
        raise ValueError(
            f"the id {line.id!r} can't name a file: use up to 60 letters, digits, spaces and . _ -, "
            "starting with a letter or digit"
        )
    line.request()  # checks the values
    return line
