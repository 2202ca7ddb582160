"""Loads ttsfrd, the reference's closed-source normaliser, if it is installed."""

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)


def load_ttsfrd(model: Path) -> Callable[[str], str] | None:
    """Load ttsfrd's normaliser; return None if the package or its resources are missing.

    The resources are expected in `CosyVoice-ttsfrd/resource` next to the model directory.
    """
    if find_spec("ttsfrd") is None:
        return None
    resource = model.parent / "CosyVoice-ttsfrd" / "resource"
    if not resource.is_dir():
        logger.warning("ttsfrd is installed, but %s is missing: text is normalised with wetext", resource)
        return None
    import ttsfrd

    engine = ttsfrd.TtsFrontendEngine()
    if not engine.initialize(str(resource)):
        logger.warning("ttsfrd can't read its resources in %s: text is normalised with wetext", resource)
        return None
    engine.set_lang_type("pinyinvg")

    def normalise(text: str) -> str:
        sentences = json.loads(engine.do_voicegen_frd(text.strip()))["sentences"]
        return "".join(sentence["text"] for sentence in sentences)

    return normalise
