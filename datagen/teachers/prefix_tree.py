"""The prefix tree of a prompt's continuations: what they share is read once.

What enters are the tokens of several continuations; what leaves is the tree's inner nodes (those with children)
and, for each continuation, where the log-prob of each of its tokens is to be read: at the token's parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tree:
    """The prefix tree of an item's continuations.

    Attributes:
        tokens: Token of each inner node, parents before children.
        parents: Index of each inner node's parent; -1 is the prompt's end.
        paths: For each continuation, (parent node, token) of each of its tokens.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]


def build_tree(continuations: Sequence[Sequence[int]]) -> Tree:
    """Merge shared beginnings; only nodes that have children become inner nodes."""
    index: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    paths = []
    for continuation in continuations:
        path = []
        node = -1
        for place, token in enumerate(continuation):
            path.append((node, token))
            if place + 1 == len(continuation):
                break
            child = index.get((node, token))
            if child is None:
                child = index[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = child
        paths.append(tuple(path))
    return Tree(tuple(tokens), tuple(parents), tuple(paths))


def node_prefixes(tree: Tree) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For the prompt's end and then each inner node: the tokens that lead to it, and its children's tokens."""
    children: dict[int, dict[int, None]] = {node: {} for node in range(-1, len(tree.tokens))}
    for path in tree.paths:
        for node, token in path:
            children[node][token] = None
    prefixes: list[tuple[int, ...]] = []
    yield (), tuple(children[-1])
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        prefixes.append((*(prefixes[parent] if parent >= 0 else ()), token))
        yield prefixes[node], tuple(children[node])
