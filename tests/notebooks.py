"""Runs the code of a notebook as Jupyter would, cell after cell in one IPython, without a kernel of its own."""

import json
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output


def code_cells(notebook: Path) -> list[dict]:
    """Returns the cells with code; raises where the file is no notebook of format 4.5."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    identities = [cell["id"] for cell in content["cells"]]
    assert len(set(identities)) == len(identities)
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def run_notebook(notebook: Path, parameters: str) -> list[str]:
    """Runs all code, with other parameters in place of the cell that is tagged so.

    Returns:
        What each cell printed; raises what a cell raises.
    """
    shell = InteractiveShell.instance()
    printed = []
    for cell in code_cells(notebook):
        source = parameters if "parameters" in cell["metadata"].get("tags", ()) else "".join(cell["source"])
        with capture_output() as captured:
            result = shell.run_cell(source)
        result.raise_error()
        printed.append(captured.stdout)
    return printed
