"""What a notebook shows: a tiny one run by nbclient, and the HTML by itself. Nothing random is asserted."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import nbclient
import nbformat
import pytest

from openmm_rlis.display import notebook
from openmm_rlis.display.progress import Snapshot
from openmm_rlis.statistics.estimators import Estimate

CELLS = (
    "import openmm_rlis as rlis\nfrom openmm_rlis.systems import double_well",
    "problem = double_well.build(height=3.0, tilt=0.5)\n"
    "settings = rlis.Settings(n_batches=4, replicas=4, learning_rounds=1, learning_roots=40, n_slots=64)\n"
    "result = rlis.run(problem, 'run', target_relative_error=0.5, settings=settings)",
    "result",
    "result.rate",
    "rlis.run(problem, 'again', target_relative_error=0.9, settings=settings, progress=lambda _: None).n_rounds > 0",
)


class Balanced(HTMLParser):
    """Checks that tags are closed in order, and collects the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, _: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[nbformat.NotebookNode]]:
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
    nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    assert (Path(folder) / "run" / "result.json").is_file()
    return [cell.outputs for cell in book.cells]


def test_progress_is_one_output_that_is_updated(outputs: list[list[nbformat.NotebookNode]]) -> None:
    (shown,) = outputs[1]
    assert shown.output_type == "display_data"
    html = Balanced(shown.data["text/html"]).text
    assert "done" in html and "stopped by target" in html and "evaluations" in html and "/ps" in html
    assert shown.data["text/plain"].startswith("done ") and " evaluations, " in shown.data["text/plain"]
    assert "script" not in shown.data["text/html"] and "widget" not in shown.data["text/html"]


def test_a_result_and_an_estimate_are_shown_with_their_intervals(outputs: list[list[nbformat.NotebookNode]]) -> None:
    (table,), (rate,) = outputs[2:4]
    text = Balanced(table.data["text/html"]).text
    assert "double_well: L → R" in text and "95 % interval" in text and "stopped by target" in text
    assert "mean first passage time" in text and "success probability" in text and text.count("[") == 4
    assert table.data["text/plain"].startswith("Result(double_well L -> R: rate ") and "/ps" in table.data["text/plain"]
    assert "95 % in [" in Balanced(rate.data["text/html"]).text
    assert rate.data["text/plain"].startswith("Estimate(") and " +- " in rate.data["text/plain"]


def test_a_progress_function_of_the_user_replaces_the_display(outputs: list[list[nbformat.NotebookNode]]) -> None:
    assert [output.output_type for output in outputs[4]] == ["execute_result"]


def test_nothing_is_shown_outside_of_a_notebook() -> None:
    assert not notebook.in_notebook() and notebook.progress() is None


def test_what_a_user_wrote_is_escaped() -> None:
    estimate = Estimate(0.1, 0.01, (0.08, 0.12), 20).to_dict()
    content = {
        **dict.fromkeys(notebook.QUANTITIES, estimate), "system": "<script>alert(1)</script>",
        "source": "<b>", "target": "&", "others": ["<i>"], "rounds": 2,
        "cost": {"force_evaluations": {"total": 100}, "seconds": 61.0},
        "diagnostics": {"alarms": ["<u>tail</u>"]},
    }  # fmt: skip
    html = notebook.result_html(content, "running")
    assert "<script" not in html and "&lt;script&gt;" in html and "<i>" not in html and "<u>" not in html
    text = Balanced(html).text
    assert "not finished" in text and "<u>tail</u>" in text and "1:01" in text and "[0.08, 0.12]" in text
    assert "<b>" not in notebook.progress_html(Snapshot(stage="learning", message="<b>bold</b>"))


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.03056, 0.00281, (0.02541, 0.03679), 20), "0.03056 +- 0.0028, 95 % in [0.0254, 0.0368], 20 batches"),
        (Estimate(0.0, float("inf"), (0.0, float("inf")), 4), "0, error unknown, 95 % in [0, inf], 4 batches"),
    ],
)
def test_an_estimate_reads_well(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text and repr(estimate) == f"Estimate({text})"
    assert Balanced(estimate._repr_html_()).text.strip() == text.replace("+-", "±")


def test_a_sign_of_life_leaves_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat comes without a message: the place where walkers rest stays in sight until the next stage."""
    shown: list[str] = []

    class Display:
        def display(self, bundle: dict[str, str], **_: object) -> Display:
            self.update(bundle)
            return self

        def update(self, bundle: dict[str, str], **_: object) -> None:
            shown.append(bundle["text/html"])

    monkeypatch.setattr(notebook, "in_notebook", lambda: True)
    monkeypatch.setattr(notebook.importlib, "import_module", lambda name: Display())
    show = notebook.progress()
    assert show is not None
    for message, stage in (("x = 0\n  others: [D0]", "learning"), ("", "learning"), ("", "plan")):
        show(Snapshot(stage, message=message))
    assert ["D0" in html for html in shown] == [True, True, False]
    assert "pre-wrap" in shown[1] and Balanced(shown[1]).text
