"""Which nodes is a parameter file for? rcl silently ignores parameters that are for other nodes.

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
