"""HyperPyYAML read as data: what a tag names is remembered as text, never imported or called.

`!new:`, `!name:` and `!apply:` on a mapping leave the mapping, with what the tag names under the key `CLASS`; on
anything else they leave the plain value. `!ref <key>` and `!ref <a> * <b>` are worked out when a value is looked up,
so a reference that nobody asks for can do no harm.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from vllm_cosyvoice.checkpoint.errors import CheckpointError

CLASS = "!class"
MAX_REFERENCE_DEPTH = 16


@dataclass(frozen=True)
class _Reference:
    factors: tuple[str, ...]


class _DataLoader(yaml.SafeLoader):
    pass


def _construct_tagged(loader: _DataLoader, class_name: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return {CLASS: class_name} | loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return None


def _construct_reference(loader: _DataLoader, node: yaml.Node) -> _Reference:
    return _Reference(tuple(factor.strip() for factor in str(node.value).split("*")))


for _tag in ("!new:", "!name:", "!apply:"):
    _DataLoader.add_multi_constructor(_tag, _construct_tagged)
_DataLoader.add_constructor("!ref", _construct_reference)


class HyperYaml:
    """The values of a HyperPyYAML file, looked up by dotted path, as in `flow.encoder.num_blocks`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open(encoding="utf-8") as file:
                root = yaml.load(file, Loader=_DataLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} is not readable YAML ({reason}); download the file again") from error
        if not isinstance(root, dict):
            raise CheckpointError(f"{path} holds no settings; download the file again")
        self._root = root

    def get(self, path: str, default: object = None) -> object:
        """The value at `path` with references resolved, or `default` where there is nothing.

        Raises:
            CheckpointError: a reference on the way cannot be worked out.
        """
        value: object = self._root
        for key in path.split("."):
            value = self._resolve(value, 0)
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return self._resolve(value, 0)

    def _resolve(self, value: object, depth: int) -> object:
        if not isinstance(value, _Reference):
            return value
        if depth == MAX_REFERENCE_DEPTH:
            raise CheckpointError(f"{self.path} has references that lead in a circle; download the file again")
        factors = [self._factor(factor, depth) for factor in value.factors]
        if len(factors) == 1:
            return factors[0]
        numbers = [factor for factor in factors if isinstance(factor, int | float)]
        if len(numbers) != len(factors):
            raise CheckpointError(f"{self.path} multiplies what is not a number: {' * '.join(value.factors)}")
        return math.prod(numbers)

    def _factor(self, text: str, depth: int) -> object:
        name = re.fullmatch(r"<([^<>]+)>", text)
        if name and name[1] in self._root:
            return self._resolve(self._root[name[1]], depth + 1)
        if text.isdecimal():
            return int(text)
        raise CheckpointError(f"{self.path} refers to {text}, which it does not define; download the file again")
