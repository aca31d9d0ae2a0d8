"""What the `.gitignore` files of a folder leave out, decided the way git decides it."""

from __future__ import annotations

import codecs
import io
import os
from dataclasses import dataclass
from typing import Self

from dulwich.ignore import IgnoreFilter, Pattern, read_ignore_patterns


@dataclass(frozen=True)
class IgnoreRules:
    """The rules that hold in one folder: its own first, then those of the folders above.

    dulwich matches the patterns. Its walk is not used: it lets the rules of a folder decide about
    that folder itself.
    """

    levels: tuple[tuple[int, tuple[Pattern, ...]], ...] = ()

    def within(self, folder: str, gitignore: bytes) -> Self:
        """Add the rules of a `.gitignore` in `folder`, a path that is empty or ends with `/`."""
        lines = read_ignore_patterns(io.BytesIO(gitignore.removeprefix(codecs.BOM_UTF8)))
        patterns = tuple(reversed(IgnoreFilter(lines).patterns))
        return type(self)(((len(folder), patterns), *self.levels))

    def leave_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether to pass over an entry of the folder; what is in a folder left out is never met."""
        for folder_length, patterns in self.levels:
            name = os.fsencode(path[folder_length:])
            for pattern in patterns:
                if pattern.matches(name, is_folder):
                    return pattern.is_exclude
        return False
