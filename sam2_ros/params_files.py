"""Which nodes is a parameter file for? rcl leaves out what is for others without a word.

Files are for fully qualified names: `sam2:` is not for /robot1/sam2. Wildcards as in rcl_yaml_param_parser: * is one
part of a name, ** any number of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_CONTENT = "ros__parameters"


def strangers(words: list[str], node: str) -> Iterator[str]:
    """A sentence for each `--params-file` among the arguments that has nothing for `node` (fully qualified)."""
    for option, path in zip(words, words[1:], strict=False):
        if option != "--params-file":
            continue
        tree = yaml.load(Path(path).read_text(errors="replace"), yaml.BaseLoader)  # values are of no interest
        names = list(_names(tree or {}))
        if not any(re.fullmatch(_pattern(name), node) for name in names):
            yield (
                f"{path}: has parameters for {' and '.join(names) or 'nobody'}, and this node is {node}: none of them "
                f"counts; write them under {node}: or /**:"
            )


def _names(tree: dict, prefix: str = "") -> Iterator[str]:
    """Namespaces may be nested."""
    for key, value in tree.items():
        name = f"{prefix}/{str(key).strip('/')}"
        if isinstance(value, dict) and _CONTENT in value:
            yield name
        if isinstance(value, dict):
            yield from _names({key: inner for key, inner in value.items() if key != _CONTENT}, name)


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
