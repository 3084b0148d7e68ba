"""The releases of a host: which is live, which were before it, and which are kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


class History:
    """What is under the directory of an application."""

    def __init__(self, root):
        self.root = Path(root)

    def live(self):
        """Id of the release that `current` points at."""
        try:
            return Path(os.readlink(self.root / "current")).name
        except FileNotFoundError:
            return None

    def installed(self):
        """List the releases that are here, the newest first."""
        found = [path.parent for path in self.root.glob("releases/*/manifest.json")]
        return [p.name for p in sorted(found, key=lambda p: p.stat().st_ctime, reverse=True)]

    def read(self):
        """Read the order in which releases became live."""
        path = self.root / "history"
        return path.read_text().split() if path.exists() else []

    def previous(self, live):
        """Name the release that was live before this one."""
        return next((release for release in self.read()[::-1] if release != live), None)

    def point(self, release):
        """Point `current` at a release."""
        link = self.root / ".current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{release}")
        link.replace(self.root / "current")

    def remember(self, release, back):
        """Keep the order of releases; going back shortens it, so that `previous` never loops."""
        lines = self.read()
        if back and release in lines:
            lines = lines[: len(lines) - lines[::-1].index(release)]
        elif lines[-1:] != [release]:
            lines.append(release)
        text = "".join(f"{line}\n" for line in lines[-50:])
        (self.root / "history").write_text(text)

    def kept(self, keep, before):
        """Name the releases to keep: the live one, the one before, others that were live.

        What never was live, or was given up, is the first to go.
        """
        live, here = self.live(), self.installed()
        needed = [release for release in (live, self.previous(live) or before) if release]
        order = [
            name for name in dict.fromkeys([*needed, *self.read()[::-1], *here]) if name in here
        ]
        return order[: max(keep, len(needed))]

    def prune(self, keep, before=None):
        """Remove releases beyond those that a rollback may name, and what only they used."""
        kept = self.kept(keep, before)
        releases, envs, artifacts = (self.root / n for n in ("releases", "envs", "artifacts"))
        manifests = [json.loads((releases / name / "manifest.json").read_text()) for name in kept]
        used = {manifest["env"] for manifest in manifests}
        files = {name for manifest in manifests for name in manifest["files"]}
        files |= {f"{manifest['id']}.json" for manifest in manifests}
        doomed = [name for name in self.installed() if name not in kept]
        for path in [releases / name for name in doomed]:
            shutil.rmtree(path)
        for path in envs.iterdir():
            if path.name not in used:
                shutil.rmtree(path)
        for path in artifacts.iterdir():
            if path.name not in files:
                path.unlink()
        return doomed
