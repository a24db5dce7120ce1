"""A pod, as far as a process can be one: its own file system, no privileges, a home that is empty."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

USER = 65534
REPOSITORY = Path(__file__).parents[2]
# What the image brings; all of it is read-only in the pod.
_IMAGE = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/etc")
# What the backend mounts for its launcher, and the scratch volume of the platform document.
LAUNCHER_MOUNTS = ("/minio", "/s3", "/gcs", "/tmp")  # noqa: S108


def pods_are_possible() -> bool:
    """Tells whether this machine lets a process have a file system of its own."""
    return (
        shutil.which("setpriv") is not None
        and subprocess.run([*_unshare(), "true"], capture_output=True).returncode == 0
    )


@dataclasses.dataclass(frozen=True)
class Pod:
    """One attempt of a task.

    Attributes:
        scratch: Empty directory; holds what the pod writes to /minio, /s3, /gcs and /tmp.
        volumes: Directory that each mount path shows.
        environment: That of the container.
    """

    scratch: Path
    volumes: Mapping[str, Path]
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        for mount in LAUNCHER_MOUNTS:
            self.path(mount).mkdir(parents=True)

    def path(self, inside: str) -> Path:
        """Returns where a path of the launcher's mounts lies on this machine."""
        return self.scratch / "mounts" / inside.lstrip("/")

    def run(self, command: Sequence[str], log: Path, deadline_s: float | None, doom: Callable[[], bool]) -> int:
        """Runs a command to its end.

        Args:
            command: The container's.
            log: Takes what it prints.
            deadline_s: The pod is killed after so many seconds; None: never.
            doom: Asked ten times a second; the pod is killed once it says so.

        Returns:
            The exit status; that of a signal is negative.
        """
        give_away(self.scratch)
        script = self.scratch / "pod.sh"
        script.write_text(self._script(command))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_unshare(), "sh", script], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            waited = 0.0
            while True:
                try:
                    return process.wait(0.1)
                except subprocess.TimeoutExpired:
                    waited += 0.1
                    if doom() or (deadline_s is not None and waited > deadline_s):
                        os.killpg(process.pid, signal.SIGKILL)

    def _script(self, command: Sequence[str]) -> str:
        root = self.scratch / "root"
        root.mkdir()
        prefixes = dict.fromkeys((str(REPOSITORY), sys.prefix, sys.base_prefix))
        image = [*(path for path in _IMAGE if Path(path).exists()), *prefixes]
        variables = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin"} | dict(self.environment)
        drop = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        if os.getuid() == 0:
            drop += [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        mounts = {mount: self.path(mount) for mount in LAUNCHER_MOUNTS} | dict(self.volumes)
        lines = [
            "set -eu",
            f"mount -t tmpfs -o mode=0755,size=16m pod {root}",
            *(_bind(source, root, target, read_only=False) for target, source in mounts.items()),
            *(_bind(path, root, path, read_only=True) for path in image),
            *(_bind(path, root, path, read_only=False) for path in ("/dev", "/proc")),
            f"mount -o remount,ro {root}",
            shlex.join(
                ["exec", "chroot", str(root), *drop, "env", "-i", *(f"{k}={v}" for k, v in variables.items()), *command]
            ),
        ]
        return "\n".join(lines)


def _unshare() -> list[str]:
    rootless = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--mount", *rootless]


def _bind(source: Path | str, root: Path, target: str, *, read_only: bool) -> str:
    inside = f"{root}{target}"
    if Path(source).is_symlink():
        return f"cp -P {source} {inside}"
    options = f" && mount -o remount,ro,bind {inside}" if read_only else ""
    return f"mkdir -p {shlex.quote(inside)} && mount --rbind {shlex.quote(str(source))} {shlex.quote(inside)}{options}"


def give_away(directory: Path) -> None:
    """Makes the pod's user own what it may write to, as an emptyDir volume is."""
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", f"{USER}:{USER}", directory], check=True)
