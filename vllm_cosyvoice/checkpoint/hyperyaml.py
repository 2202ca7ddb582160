"""Reads HyperPyYAML as data: the classes and functions in tags are kept as text, never imported or called.

A mapping with the tag `!new:`, `!name:` or `!apply:` is read as the mapping, with the tag's name under the key `CLASS`.
For other nodes, these tags are ignored. `!ref <key>` and `!ref <a> * <b>` are resolved when a value is looked up, so an
invalid reference that is not used does no harm.
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
    """The values of a HyperPyYAML file, by dotted path, as in `flow.encoder.num_blocks`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open(encoding="utf-8") as file:
                root = yaml.load(file, Loader=_DataLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} is not readable YAML ({reason}); download the file again") from error
        if not isinstance(root, dict):
            raise CheckpointError(f"{path} contains no settings; download the file again")
        self._root = root

    def get(self, path: str, default: object = None) -> object:
        """Return the value at `path` with references resolved, or `default` if it is missing.

        Raises:
            CheckpointError: a reference on the path can't be resolved.
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
            raise CheckpointError(f"{self.path} has circular references; download the file again")
        factors = [self._factor(factor, depth) for factor in value.factors]
        if len(factors) == 1:
            return factors[0]
        numbers = [factor for factor in factors if isinstance(factor, int | float)]
        if len(numbers) != len(factors):
            raise CheckpointError(f"{self.path} multiplies values that are not numbers: {' * '.join(value.factors)}")
        return math.prod(numbers)

    def _factor(self, text: str, depth: int) -> object:
        name = re.fullmatch(r"<([^<>]+)>", text)
        if name and name[1] in self._root:
            return self._resolve(self._root[name[1]], depth + 1)
        if text.isdecimal():
            return int(text)
        raise CheckpointError(f"{self.path} refers to {text}, which it does not define; download the file again")
