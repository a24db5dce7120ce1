"""The lock, the audit and the bill of materials; and files that would run code on being read."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.compression.store import Store

ROOT = Path(__file__).parents[2]
# Nothing listens there. Where both are set, those in small letters win.
NO_NETWORK = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9")


def locked() -> dict[str, str]:
    """Returns the lines of each package of the lock."""
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    return {entry.partition("==")[0]: entry for entry in entries if "==" in entry}


def test_every_package_is_locked_to_a_version_and_its_hashes_and_no_index_is_named() -> None:
    packages = locked()
    assert len(packages) > 200
    for entry in packages.values():
        assert re.match(r"\S+==\S+", entry)
        assert "--hash=sha256:" in entry
    assert "http" not in re.sub(r"^[a-z0-9-]+==.*$|^ +#.*$", "", (ROOT / "requirements.lock").read_text(), flags=re.M)
    assert "--require-hashes" in (ROOT / ".ci" / "setup").read_text()


@pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="make audit works on the .venv that make setup has made")
def test_an_audit_that_cannot_be_made_is_a_failed_audit() -> None:
    result = subprocess.run(
        [ROOT / ".ci" / "audit"], capture_output=True, text=True, cwd=ROOT, env=os.environ | NO_NETWORK, timeout=300
    )
    assert result.returncode == 1
    assert result.stderr.startswith("trimline: the audit could not be made, so nothing is known: ")
    assert result.stderr.count("\n") == 1


def test_every_accepted_finding_has_its_reason() -> None:
    for line in (ROOT / ".ci" / "audit-accepted").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"(PYSEC|GHSA|CVE)-\S+ .{20,}", line), line


@pytest.mark.component  # Some seconds.
def test_the_bill_of_materials_has_every_package_with_its_hashes(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("cyclonedx-py"), "requirements", "--output-file", tmp_path / "sbom.json"]
    subprocess.run([*command, ROOT / "requirements.lock"], check=True, capture_output=True, timeout=300)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {component["name"] for component in bill["components"]} == locked().keys()
    assert all(component["externalReferences"][0]["hashes"] for component in bill["components"])


class _Witness:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self._path), "w")


def test_a_pickle_among_kept_weights_is_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    pickle.loads(pickle.dumps(_Witness(witness))).close()  # noqa: S301 (what must not happen elsewhere)
    assert witness.exists()
    witness.unlink()
    content = io.BytesIO()
    np.savez(content, np.array([_Witness(witness)], dtype=object))
    (tmp_path / "stage.npz").write_bytes(content.getvalue())
    assert Store(str(tmp_path)).load("stage") is None
    assert not witness.exists()
