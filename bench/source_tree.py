r"""The hash git gives a folder, from the files themselves: `git rev-parse HEAD:csrc` where there is no repository.

A blob is sha1("blob <size>\0" + bytes), a tree sha1("tree <size>\0" + its entries), an entry "<mode> <name>\0" + the
20 bytes of its hash; folders sort as if their names ended in a slash. Folders without files are left out, as git does.

Source: git's object format (gitformat-pack, git-hash-object). Imports nothing of segfast: it runs before a build.
"""

# SPDX-License-Identifier: Apache-2.0

import hashlib
from collections.abc import Collection
from pathlib import Path


def tree_hash(folder: Path, leave_out: Collection[str] = ()) -> str:
    """The hash of a folder as it lies there; equal to git's where nothing in it is changed, ignored or untracked.

    Args:
        folder: plain files and folders; names that begin with a dot and `__pycache__` are passed over.
        leave_out: names at the top that are passed over too.

    Returns:
        40 hexadecimal digits.
    """
    return _tree(folder, leave_out).hex()


def _tree(folder: Path, leave_out: Collection[str] = ()) -> bytes:
    entries: list[tuple[bytes, bytes, bytes]] = []  # what it sorts by, mode and name, hash
    for path in folder.iterdir():
        name = path.name.encode()
        if path.name.startswith(".") or path.name == "__pycache__" or path.name in leave_out:
            continue
        if path.is_dir():
            if any(part.is_file() for part in path.rglob("*")):
                entries.append((name + b"/", b"40000 " + name, _tree(path)))
        else:
            mode = b"100755 " if path.stat().st_mode & 0o100 else b"100644 "
            entries.append((name, mode + name, _object(b"blob", path.read_bytes())))
    return _object(b"tree", b"".join(text + b"\0" + sha for _, text, sha in sorted(entries)))


def _object(kind: bytes, content: bytes) -> bytes:
    return hashlib.sha1(kind + b" %d\0" % len(content) + content, usedforsecurity=False).digest()
