"""The output directory of a run: where everything lies, and who may write."""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import PipelineSettings, PushSettings
from trainer_module.errors import UserError
from trainer_module.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

# Beam, TFX and TensorFlow find the files of artifacts by patterns, and have no way to quote these.
_PATTERN_CHARACTERS = "[]*?\\"


class Workspace:
    """Names the files of one output directory; see the contract in docs/outputs.md."""

    def __init__(self, root: Path) -> None:
        """Names the files; creates nothing.

        Args:
            root: The output directory, OUT.
        """
        self.root = root.absolute()
        self.pipeline_root = self.root / "pipeline_root"
        self.training_logs = self.pipeline_root / "Trainer" / "model_run"
        self.metadata_file = self.root / "metadata.db"
        self.pushed_saved_model = self.root / "pushed" / "saved_model"
        self.pushed_tflite = self.root / "pushed" / "tflite"
        self.report = self.root / "report" / "index.html"
        self.summary_file = self.root / "report" / "summary.json"
        self.run_summaries = self.root / "report" / "runs"
        self.comparison = self.root / "report" / "comparison.html"
        self.model_card = self.root / "report" / "model_card.md"
        self.model_card_json = self.root / "report" / "model_card.json"
        self.settings_file = self.root / "settings.json"
        self.log_file = self.root / "logs" / "run.log"
        self.progress_file = self.root / "logs" / "progress.json"
        self.trouble_file = self.root / "logs" / "trouble.txt"
        self.graph_file = self.root / "logs" / "graph.json"
        self.ladder_file = self.root / "ladder.json"
        self.ladder_picture = self.root / "ladder.png"
        self.ladder_progress_file = self.root / "logs" / "ladder.jsonl"
        self.compressed = self.root / "compressed"
        self.compressed_partial = self.root / "compressed.partial"
        self.compression_checkpoints = self.root / "checkpoints"
        self._lock_file = self.root / ".lock"

    def prepare(self) -> None:
        """Creates the directories.

        Raises:
            UserError: If the output directory cannot be written, or has a name in which files are not found.
        """
        special = next((character for character in str(self.root) if character in _PATTERN_CHARACTERS), None)
        if special:
            raise UserError(
                f"{self.root}: the path of the output directory must not have '{special}' in it, which Beam and TFX "
                "take for a pattern; choose another --output"
            )
        try:
            for directory in (self.pipeline_root, self.run_summaries, self.log_file.parent):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[IO[str]]:
        """Keeps other runs away from this output directory, and yields the lock's open file.

        Raises:
            UserError: If another run is under way there, or the output directory cannot be written or locked.
        """
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.root}: another run is writing there; wait for it or choose another --output"
                ) from None
            except OSError as error:
                raise UserError(
                    f"{self.root}: this file system has no locks ({error.strerror}); choose another --output"
                ) from None
            yield lock

    def _open_lock(self) -> IO[str]:
        try:
            return self._lock_file.open("w")
        except OSError as error:
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"{self.root}: cannot write the output there: {error.strerror}; choose another --output")

    def write_settings(self, settings: PipelineSettings) -> None:
        """Stores the settings of the run, as a whole or not at all."""
        write_whole(self.settings_file, settings.model_dump_json(indent=2))

    def read_settings(self) -> PipelineSettings:
        """Reads the settings of the latest run.

        Raises:
            UserError: There are none, or not of this version.
        """
        try:
            return PipelineSettings.model_validate_json(self.settings_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "damaged, or of another version of Trimline"
            raise UserError(f"{self.settings_file}: {reason}; trimline run with this --output writes it anew") from None

    def read_push_settings(self) -> PushSettings | None:
        """Reads where the latest run pushed to, from settings of another version too; None where nothing says it."""
        try:
            return PushSettings.model_validate(json.loads(self.settings_file.read_text(encoding="utf-8"))["push"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
