"""Finds parameter files that have nothing for this node: rcl silently ignores parameters of other nodes.

Files name nodes by their fully qualified names: `sam2:` does not match /robot1/sam2. Wildcards are those of
rcl_yaml_param_parser: * matches one part of a name, ** any number of parts.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_CONTENT = "ros__parameters"


def strangers(words: list[str], node: str) -> Iterator[str]:
    """Yields a sentence for each `--params-file` in `words` without parameters for `node` (fully qualified name)."""
    for option, path in zip(words, words[1:], strict=False):
        if option != "--params-file":
            continue
        try:
            trees = list(yaml.compose_all(Path(path).read_text(errors="replace")))
        except (OSError, yaml.YAMLError):  # rcl's parser accepts more, tabs for one; and a warning must not be fatal
            continue
        names = [name for tree in trees if tree is not None for name in _names(tree)]
        if not any(re.fullmatch(_pattern(name), node) for name in names):
            yield (
                f"{path}: has parameters for {' and '.join(names) or 'nobody'}, and this node is {node}: none of them "
                f"counts; write them under {node}: or /**:"
            )


def _names(tree: yaml.Node, prefix: str = "") -> Iterator[str]:
    """The names that have parameters. Namespaces may be nested, and keys may come twice."""
    for key, value in tree.value if isinstance(tree, yaml.MappingNode) else ():
        name = f"{prefix}/{str(key.value).strip('/')}"
        if isinstance(value, yaml.MappingNode):
            inner = [(k, v) for k, v in value.value if k.value != _CONTENT]
            if len(inner) < len(value.value):
                yield name
            yield from _names(yaml.MappingNode(value.tag, inner), name)


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
