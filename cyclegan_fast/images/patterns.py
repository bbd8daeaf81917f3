"""Finds what a pattern such as "photos/**/*.jpg" matches, and names the folders that could not be searched for it."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

WILDCARDS = frozenset("*?[")
_ANY_FOLDERS = "**"


class Match(NamedTuple):
    """Names a file or folder that a pattern matches; a link counts as what it leads to."""

    path: Path
    is_folder: bool


class PatternSearch:
    """Matches patterns as a shell does: "**" is any folders, hidden names match where the pattern has the dot.

    Not `glob.glob`: it passes over folders that may not be searched in silence. Links are followed; below one "**" each
    folder is searched once, by the shortest of the paths that lead to it.
    """

    def __init__(self) -> None:
        self.closed: list[tuple[Path, str]] = []
        """folders that cannot be searched, with the system's reason"""

    def matches(self, folder: Path, parts: Sequence[str]) -> Iterator[Match]:
        """Yield what below `folder` the parts of a pattern match, one a level; in order below each folder."""
        part, rest = parts[0], parts[1:]
        if part == _ANY_FOLDERS:
            for below in self._folders_below(folder):
                yield from self.matches(below, rest or "*")
        elif set(part) & WILDCARDS:
            for found in self._entries(folder):
                if fnmatchcase(found.path.name, part) and (found.path.name[0] != "." or part[0] == "."):
                    yield from self._of_the_rest(found, rest)
        else:
            named = self._named(folder / part)
            if named is not None:
                yield from self._of_the_rest(named, rest)

    def _of_the_rest(self, found: Match, rest: Sequence[str]) -> Iterator[Match]:
        if not rest:
            yield found
        elif found.is_folder:
            yield from self.matches(found.path, rest)

    def _folders_below(self, folder: Path) -> Iterator[Path]:
        """Yield a folder and all below it that are not hidden, level by level, each once."""
        seen: set[tuple[int, int]] = set()
        level = [folder]
        while level:
            following: list[Path] = []
            for path in level:
                try:
                    status = path.stat()
                except OSError:
                    pass  # whoever searches it says so
                else:
                    if (identity := (status.st_dev, status.st_ino)) in seen:
                        continue
                    seen.add(identity)
                yield path
                following += [entry.path for entry in self._entries(path) if entry.is_folder]
            level = [path for path in following if path.name[0] != "."]

    def _entries(self, folder: Path) -> list[Match]:
        """Return what is in a folder, in order; nothing where it cannot be searched, or is none."""
        try:
            with os.scandir(folder) as entries:
                return sorted(Match(folder / entry.name, _leads_to_folder(entry)) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._close(folder, error)
            return []

    def _named(self, path: Path) -> Match | None:
        try:
            path.lstat()
            return Match(path, path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._close(path.parent, error)
            return None

    def _close(self, folder: Path, error: OSError) -> None:
        line = folder, error.strerror or str(error)
        if line not in self.closed:
            self.closed.append(line)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # whoever reads it says why that cannot be
