"""Cache of plans on disk, as building one takes minutes. A file is the plan's checksum followed by the plan."""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from vllm_cosyvoice.checkpoint.vllm_directory import cache_directory

log = logging.getLogger(__name__)

CHECKSUM_BYTES = hashlib.sha256().digest_size


def plan_path(content: bytes, library: str, chip: str) -> Path:
    """The path of a plan. `content`, `library` (with its version) and `chip` together determine the plan."""
    name = "-".join([chip, library, hashlib.sha256(content).hexdigest()[:16]])
    return cache_directory() / "tensorrt" / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in name)}.plan"


def cached_plan(path: Path, build: Callable[[], bytes]) -> bytes:
    """Read the plan at `path`. If it is missing or damaged, build and cache it."""
    if path.is_file():
        content = path.read_bytes()
        if hashlib.sha256(content[CHECKSUM_BYTES:]).digest() == content[:CHECKSUM_BYTES]:
            return content[CHECKSUM_BYTES:]
        log.warning("%s is damaged and will be rebuilt.", path)
    plan = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            whole = Path(directory) / path.name
            whole.write_bytes(hashlib.sha256(plan).digest() + plan)
            whole.replace(path)
    except OSError as error:
        log.warning("%s can't be written (%s), so every start rebuilds it: set VLLM_COSYVOICE_CACHE.", path, error)
    return plan
