"""Replies of judges on disk, by the hash of what was asked, so that a resumed or re-scored run gets the same grades.

    <folder>/3f/3f9a…c1.json    {"asked": {…}, "text": "…", "cut": false}

`asked` is all that a reply depends on: url or model, the messages with rubric, question and answer, temperature, token
limit. It holds no key. A file appears whole or not at all, and the first one stays: whoever asks the same at the same
time gets the reply that stands, so that processes that share a folder agree at any temperature. A file that a broken
disk made unreadable counts as absent. Failures are not kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from rewards.judge.endpoint import Reply
from rlhf.core.errors import ConfigError
from rlhf.core.types import Json

Asked = Mapping[str, Json]
_LOG = logging.getLogger(__name__)
_TOLD: set[Path] = set()


class Cache:
    """A folder of replies, for any number of processes.

    Args:
        folder: is made when the first reply comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, asked: Asked) -> Reply | None:
        """The reply to exactly this, if there is one.

        Raises:
            ConfigError: the folder cannot be read.
        """
        path = self._path(asked)
        try:
            found: Any = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError("cache", f"{path} cannot be read: {error}", fix="mend it, or choose a folder") from error
        except (ValueError, RecursionError):
            return None
        entry = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        text = entry.get("text")
        if entry.get("asked") != json.loads(json.dumps(asked)) or not isinstance(text, str):
            return None
        return Reply(text=text, cut=entry.get("cut") is True)

    def put(self, asked: Asked, reply: Reply) -> Reply:
        """Keep a reply; returns the one that stands, which is that of whoever was first.

        A disk that refuses costs the entry, not the reply: it is said once.
        """
        path = self._path(asked)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"asked": asked, "text": reply.text, "cut": reply.cut}), encoding="ascii")
            try:
                os.link(temporary, path)
            except FileExistsError:
                if (standing := self.get(asked)) is not None:
                    return standing
                os.replace(temporary, path)
            except OSError:  # a file system without hard links
                os.replace(temporary, path)
        except OSError as error:
            if self._folder not in _TOLD:
                _TOLD.add(self._folder)
                _LOG.warning("replies of the judge are not kept in %s: %s", self._folder, error)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return reply

    def _path(self, asked: Asked) -> Path:
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"
