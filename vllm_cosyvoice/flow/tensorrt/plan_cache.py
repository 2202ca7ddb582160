"""Plans on disk. Building one takes minutes, so it is kept: whole, with its checksum in front."""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from vllm_cosyvoice.checkpoint.vllm_directory import cache_directory

log = logging.getLogger(__name__)

CHECKSUM_BYTES = hashlib.sha256().digest_size


def plan_path(content: bytes, library: str, chip: str) -> Path:
    """Where the plan of `content` belongs, which is all that decides it but the versions of `library` and `chip`."""
    name = "-".join([chip, library, hashlib.sha256(content).hexdigest()[:16]])
    return cache_directory() / "tensorrt" / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in name)}.plan"


def cached_plan(path: Path, build: Callable[[], bytes]) -> bytes:
    """The plan at `path`, or, if there is none or it is damaged, the one that `build` makes, which is then kept."""
    if path.is_file():
        kept = path.read_bytes()
        if hashlib.sha256(kept[CHECKSUM_BYTES:]).digest() == kept[:CHECKSUM_BYTES]:
            return kept[CHECKSUM_BYTES:]
        log.warning("%s is damaged and is built anew.", path)
    plan = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            whole = Path(directory) / path.name
            whole.write_bytes(hashlib.sha256(plan).digest() + plan)
            whole.replace(path)
    except OSError as error:
        log.warning("%s cannot be written (%s), so every start builds it: set VLLM_COSYVOICE_CACHE.", path, error)
    return plan
