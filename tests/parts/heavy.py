"""A tree that is too much: for a release that nobody should take."""

import hashlib
import zlib

from tests.parts.repo import Repo

BLOCK = 4 * 1024**2


def tree_of_zeros(repo: Repo, size: int) -> str:
    """Make the index's tree with `zeros.bin` beside its files; return the tree's id, and leave the index as it was.

    The file is written as git would store it, in no more memory than a block, and takes a thousandth of `size`.
    """
    head = f"blob {size}\0".encode()
    digest, packed = hashlib.sha1(head), zlib.compressobj(1)
    pieces, block = [packed.compress(head)], bytes(BLOCK)
    for _ in range(size // len(block)):
        digest.update(block)
        pieces.append(packed.compress(block))
    pieces.append(packed.flush())
    oid = digest.hexdigest()
    file = repo.work / ".git" / "objects" / oid[:2] / oid[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(pieces))
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},zeros.bin")
    tree = repo.git("write-tree")
    repo.git("rm", "--quiet", "--cached", "zeros.bin")
    return tree
