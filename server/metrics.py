"""What /metrics shows: the numbers of every process, as Prometheus reads them."""

from collections.abc import Mapping

PREFIX = "cosyvoice_"


def render(numbers: Mapping[str, Mapping[str, int]]) -> str:
    """Prometheus' text format of `numbers`: process → name → value. Names that end in `_total` are counters."""
    lines = []
    for name in sorted({name for of_process in numbers.values() for name in of_process}):
        lines.append(f"# TYPE {PREFIX}{name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines += [
            f'{PREFIX}{name}{{process="{process}"}} {of_process[name]}'
            for process, of_process in sorted(numbers.items())
            if name in of_process
        ]
    return "".join(f"{line}\n" for line in lines)
