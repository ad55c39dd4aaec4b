"""Shared helpers of the tests of saved pipelines."""

import json
import zipfile


def rewrite(path, change):
    """Replace members of the archive by what ``change`` makes of them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)


def rewrite_about(path, change):
    """Let ``change`` alter what a saved pipeline says of itself."""

    def rewritten(members):
        about = json.loads(members["featx.json"])
        change(about)
        return members | {"featx.json": json.dumps(about)}

    rewrite(path, rewritten)
