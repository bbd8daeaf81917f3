"""Brings trained weights from a hub of models, by names such as "hub:owner/name@v1", and to it.

The hub is Hugging Face's, or another that HF_ENDPOINT names. The optional package `huggingface_hub` speaks with it,
keeps what was fetched in its cache, and makes do with that where there is no network (HF_HUB_OFFLINE=1). Only the files
of published.py and bare weights are fetched, and reading those runs no code.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cyclegan_fast.checkpoint.published import PUBLISHED_WEIGHTS, is_published
from cyclegan_fast.runs import CONFIG
from cyclegan_fast.system.errors import UserError, in_brief_words

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "hub:"
_WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")
_PART = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_NAME = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(@(?P<revision>refs/\w+/{_PART}|[\w.-]+))?(/(?P<file>{_PART}(/{_PART})*))?"
)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class HubName:
    """Holds a name on the hub: a repository, and where they are given its revision and one file in it."""

    repository: str
    revision: str | None
    file: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "hub:owner/name", "hub:owner/name@revision", or either with "/latest_net_G.pth" behind it.

        Raises UserError for anything else.
        """
        match = _NAME.fullmatch(text.removeprefix(HUB))
        if not match or ".." in text:
            raise UserError(
                f"{text} is no name on the hub: it reads hub:owner/name, hub:owner/name@revision, or "
                "hub:owner/name/latest_net_G.pth for a file of weights in there"
            )
        file = match["file"]
        if file and not file.endswith(_WEIGHTS_SUFFIXES):
            raise UserError(f"{text}: a file of weights ends in {', '.join(_WEIGHTS_SUFFIXES)}")
        return cls(match["repository"], match["revision"], file)

    @property
    def short(self) -> str:
        """Return what files made from these weights are called: the file's name without its ending, or the name."""
        return Path(self.file).stem if self.file else self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.repository}{f'@{self.revision}' if self.revision else ''}"


def is_hub_name(name: object) -> bool:
    """Tell whether a name, a string or a path, is one on the hub."""
    return str(name).startswith(HUB)


def local_copy(text: str) -> Path:
    """Fetch what a name on the hub stands for, where it is not here yet; return the folder, as `push_to_hub` wrote it.

    Of a name with a file, that file is returned. Whatever loads weights takes both.

    Raises UserError where the package `huggingface_hub` is missing, where the hub has no such repository, revision or
    file or cannot be reached and nothing is here, and where a repository holds no weights of this project.
    """
    name = HubName.parse(text)
    hub = _client(f"{HUB}{name}")
    with _told(name):
        if name.file:
            return Path(hub.hf_hub_download(name.repository, name.file, revision=name.revision))
        wanted = [CONFIG, PUBLISHED_WEIGHTS]
        folder = hub.snapshot_download(name.repository, revision=name.revision, allow_patterns=wanted)
        assert isinstance(folder, str)
        if not is_published(Path(folder)):
            raise UserError(f"{HUB}{name} {_lack(hub, name)}")
        return Path(folder)


def _lack(hub: "HfApi", name: HubName) -> str:
    """Say what a repository without our files holds instead."""
    files = sorted(hub.list_repo_files(name.repository, revision=name.revision))
    weights = [file for file in files if file.endswith(_WEIGHTS_SUFFIXES)]
    if weights:
        return f"has no {PUBLISHED_WEIGHTS}; name one of its files: {HUB}{name}/{weights[0]}"
    shown = ", ".join(files[:4]) or "nothing"
    return f"has no {PUBLISHED_WEIGHTS}, as push_to_hub writes it: it holds {shown}{' ...' if files[4:] else ''}"


class HubRepository:
    """Writes into a repository of the hub, which is made where it is not there yet.

    Args:
        repository: "owner/name".
        private: whether only its owner sees it; None leaves that to the hub, on which new ones are public as a rule.
        branch: where to write to; by default its main one.
        token: by default the one of `hf auth login` or HF_TOKEN.

    Raises UserError where the name is none, where the hub refuses, and where the repository is public and should be
    private.
    """

    def __init__(
        self, repository: str, *, private: bool | None = None, branch: str | None = None, token: str | None = None
    ) -> None:
        repository = repository.removeprefix(HUB)
        if not _REPOSITORY.fullmatch(repository) or ".." in repository:
            raise UserError(f"{repository!r} is no name on the hub: it reads owner/name")
        self.name = HubName(repository, branch, None)
        self._hub = _client("push_to_hub", token)
        with _told(self.name):
            self._hub.create_repo(repository, private=private, exist_ok=True)
            self.is_private = bool(self._hub.model_info(repository).private)
            if private and not self.is_private:
                raise UserError(f"{repository} is there already and is public: make it private on its page first")
            if branch:
                self._hub.create_branch(repository, branch=branch, exist_ok=True)

    def read(self, file: str) -> str | None:
        """Return the text of a file; None where there is none of that name."""
        from huggingface_hub.errors import EntryNotFoundError

        with _told(self.name):
            try:
                path = self._hub.hf_hub_download(self.name.repository, file, revision=self.name.revision)
            except EntryNotFoundError as error:
                if isinstance(error, FileNotFoundError):  # it was not found here, and the hub was not asked
                    raise
                return None
        return Path(path).read_text(encoding="utf-8")

    def commit(self, files: Mapping[str, Path], message: str) -> str:
        """Write files by their names there, all or none; return the address of what was written."""
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        with _told(self.name):
            try:
                made = self._hub.create_commit(
                    self.name.repository, operations, commit_message=message, revision=self.name.revision
                )
            except RuntimeError as error:  # of an upload, whose cause says more
                raise UserError(
                    f"{self.name}: the upload failed ({in_brief_words(error.__cause__ or error)}), and nothing was "
                    "changed there: push again"
                ) from error
        return str(made.commit_url)


def _client(needed_by: str, token: str | None = None) -> "HfApi":
    if find_spec("huggingface_hub") is None:
        raise UserError(f"{needed_by} needs the package huggingface_hub: pip install huggingface_hub")
    from huggingface_hub import HfApi

    from cyclegan_fast.version import __version__

    return HfApi(token=token, library_name="cyclegan-fast", library_version=__version__)


@contextmanager
def _told(name: HubName) -> Iterator[None]:
    """Turn what the client raises into a UserError of one line."""
    from huggingface_hub import constants, errors

    # The root of the errors of the library beneath the client, of which there were three so far.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(f"{name.repository} is gated: ask for access on its page, and {_LOG_IN}") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the hub shows no repository {name.repository}: mind the spelling; or, where it is private, {_LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name.repository} has no revision {name.revision} on the hub") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = (
            "HF_HUB_OFFLINE=1 forbids it" if constants.HF_HUB_OFFLINE else f"{_reason(error)}; try again with a network"
        )
        raise UserError(f"{name} is not on this machine, and the hub cannot be asked: {why}") from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{name} has no file {name.file} on the hub") from error
    except errors.HfHubHTTPError as error:
        raise UserError(f"{name}: the hub {_refusal(error)}") from error
    except (transport, OSError, ValueError) as error:
        raise UserError(f"{name}: the hub could not be asked: {in_brief_words(error)}; try again") from error


def _refusal(error: Any) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"refuses that ({status}): {_LOG_IN}, with a token that may write there"
    said = error.server_message or in_brief_words(error)
    return f"answers {status}: {' '.join(str(said).split())[:200]}"


def _reason(error: BaseException) -> str:
    """Return the first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return in_brief_words(error)
