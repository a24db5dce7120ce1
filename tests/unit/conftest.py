import pytest

from trainer_module import progress


@pytest.fixture
def kept_reports(tmp_path):
    """The file in which the latest progress reports are kept while a test runs."""
    file = tmp_path / "reports.json"
    with progress.kept_in(file):
        yield file
