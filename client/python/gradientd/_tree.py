"""Parameters and gradients as trees: nested dicts, lists and tuples of arrays, and with JAX whatever it knows as one.

The order is that of the trees, for which it does not matter whether JAX, which sorts dicts, is in use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

SOLE_NAME = "parameters"  # of a tree that is one array


def _key_name(key: Any) -> str:
    for attribute in ("key", "idx", "name"):  # DictKey, SequenceKey, GetAttrKey
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _children(tree: Any) -> list[tuple[str, Any]] | None:
    """What a node holds, by name; None: it is a leaf."""
    if isinstance(tree, Mapping):
        return [(str(key), tree[key]) for key in tree]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple)):
        return [(str(index), entry) for index, entry in enumerate(tree)]
    if hasattr(tree, "dtype") or "jax" not in sys.modules:
        return None
    from jax.tree_util import tree_flatten_with_path

    pairs, _ = tree_flatten_with_path(tree)  # of a node of a library's own
    return None if len(pairs) == 1 and pairs[0][0] == () else [("/".join(map(_key_name, p)), leaf) for p, leaf in pairs]


def _walk(tree: Any, path: str, leaves: dict[str, Any]) -> None:
    children = None if tree is None else _children(tree)
    if children is not None:
        for name, child in children:
            _walk(child, f"{path}/{name}" if path else name, leaves)
    elif tree is not None:
        leaves[path or SOLE_NAME] = tree


def flatten(tree: Any) -> dict[str, Any]:
    """The tree's arrays by name, such as layer1/weight; None is left out."""
    leaves: dict[str, Any] = {}
    _walk(tree, "", leaves)
    return leaves
