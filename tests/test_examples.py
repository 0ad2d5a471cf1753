"""The notebooks in `examples/` run from top to bottom in a kernel of their own, and lie in git without outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


def texts(notebook) -> str:
    """What the cells put out, as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.long
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not [cell for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count is None]
    if path.stem == "quickstart":
        said = texts(notebook)
        assert "annotate okvqa: 160 of 160" in said and "40 questions on 20 pictures" in said
        pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
        assert any("image/png" in output.data for output in pictures)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_lies_in_git_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    kept = [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    assert not kept, f"clear the outputs of {path.name}: jupyter nbconvert --clear-output --inplace {path}"


def test_there_is_a_notebook_to_begin_with():
    assert "quickstart" in [path.stem for path in EXAMPLES]
