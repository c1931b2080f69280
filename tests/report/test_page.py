"""The page of a report: safe, self-contained, honest about partial runs, and readable in a browser.

One short real run serves most tests; made-up runs (from test_report) carry the names and alarms that should hurt.
"""

import math
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_write import PLANE, make_run

import openmm_rlis as rlis
from openmm_rlis import cli
from openmm_rlis.cli import commands, exit_status
from openmm_rlis.config import build_problem, yaml_values
from openmm_rlis.config.settings import Settings
from openmm_rlis.paths.ensemble import PathEnsemble
from openmm_rlis.regions import Box
from openmm_rlis.report import check_titles, page, path_figures, plot_data, projections, provenance, wording
from openmm_rlis.report import write as report
from openmm_rlis.sampling import run as sampler
from openmm_rlis.systems import double_well

ROOT = Path(__file__).parents[2]
VOID = {"meta", "img", "link", "br"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = "<script>alert('x')</script>"
A = r"A&<b>$\nosuch$"
"""Neither HTML nor a formula."""
WORSE = "<img src=x onerror=alert(1)>"
BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ('torch', 'openmm', 'openmmtorch'): raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from openmm_rlis.report import report
report(Path(sys.argv[1]))
"""


class Reader(HTMLParser):
    """Text, tags with attributes, and whether every tag that was opened was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def rendered(runs: list[plot_data.RunData], folder: Path) -> str:
    return page.write(folder / "report.html", path_figures.prepare(runs, PLANE)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of made-up runs whose names and alarms are HTML."""
    names = {"system": HOSTILE, "others": [WORSE], "diagnostics": {"alarms": [f"{HOSTILE}: run longer"]}}
    runs = [make_run(1, A, "B"), make_run(2, "B", A)]
    folder = tmp_path_factory.mktemp("pair")
    hostile = [replace(run, result={**run.result, **names}) for run in runs]
    path_figures.draw_all(path_figures.prepare(hostile, PLANE), folder)
    rendered(hostile, folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("page") / "run"
    settings = Settings(learning_rounds=2, learning_roots=200)
    rlis.run(double_well.build(height=4.0), directory, seed=7, target_relative_error=0.15, settings=settings)
    report.report(directory)
    yield directory


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("report.html", "figures")))


def read(directory: Path) -> Reader:
    return Reader((directory / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_outside_itself(finished: Path) -> None:
    found = read(finished)
    assert found.open == [] and found.text.count("Transition rate of double_well") == 2  # title and heading
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "video", "base", "form"}
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    assert len(images) >= 8 and all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in images)
    assert all(len(str(image["alt"])) > 10 for image in images)
    style = (finished / "report.html").read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    addresses = [str(value) for _, attrs in found.tags for key, value in attrs.items() if key in ("src", "href")]
    assert not any(address.startswith(("http", "//")) for address in addresses)
    policies = [attrs["content"] for tag, attrs in found.tags if tag == "meta" and "http-equiv" in attrs]
    kept = ("default-src", "base-uri", "form-action")
    assert policies and all(f"{name} 'none'" in str(policies[0]) for name in kept)
    assert not list(finished.glob(".tmp-*"))


def test_the_page_says_the_rate_and_what_it_means(finished: Path) -> None:
    result, text = rlis.load(finished), read(finished).text
    low, high = (wording.number(end, like=result.rate.value) for end in result.rate.interval)
    assert f"{wording.number(result.rate.value)} /ps" in text and f"95 % interval {low} to {high} /ps" in text
    assert "95 of 100 such intervals" in text
    assert f"every {wording.time_text(result.mean_first_passage_time.value)} spent in state L" in text
    assert f"{sum(check.verdict == 'passed' for check in result.checks)} checks passed" in text
    assert all(title in text for title, _ in check_titles.CHECKS.values())
    assert set(check_titles.CHECKS) == {check.name for check in result.checks}


def test_values_are_escaped(hostile: Path) -> None:
    found = read(hostile)
    tags = [tag for tag, _ in found.tags]
    assert "script" not in tags and "b" not in tags and not any("onerror" in attrs for _, attrs in found.tags)
    assert found.text.count(HOSTILE) >= 3 and WORSE in found.text and f"{A} → B" in found.text


def test_alarms_come_first(hostile: Path) -> None:
    text = read(hostile).text
    alarm, rate = text.index(f"{HOSTILE}: run longer"), text.index(wording.number(make_run(1, "A", "B").rate().value))
    assert 0 < alarm < rate and text.count("One alarm: the interval may be too narrow") == 4
    assert f"{A} → B and B → {A}" in text


@pytest.mark.parametrize("case", ["no paths", "no transitions", "one batch", "nothing"])
def test_pages_of_meagre_runs(tmp_path: Path, case: str) -> None:
    run = make_run(1, "A", "B", n_rounds=3, n_batches=1 if case == "one batch" else 4)
    if case in ("no paths", "nothing"):
        run = replace(run, paths=PathEnsemble([]))
    if case == "no transitions":
        run = replace(run, transitions=0 * run.transitions, paths=run.paths.failures())
    if case == "nothing":
        run = replace(run, **{name: getattr(run, name)[:0] for name in (*plot_data.ARRAYS, "replicas")})
    found = Reader(rendered([run], tmp_path))
    expected = {
        "no paths": "No success path is stored", "no transitions": "No transition from A to B was observed",
        "one batch": "not known yet", "nothing": "No rate yet",
    }  # fmt: skip
    assert found.open == [] and expected[case] in found.text


def test_a_run_killed_while_it_learns(copied: Path) -> None:
    for name in ("rounds/production", "rounds/plan"):
        shutil.rmtree(copied / name)
    (copied / "result.json").unlink()
    (copied / "value.pt").unlink()
    assert cli.execute(["report", str(copied)]) == 0
    text = read(copied).text
    assert "No rate yet" in text and "stage learning" in text and "rlis resume copy" in text
    assert "last learning round gave about" in text


def test_a_run_killed_in_production_and_one_direction_of_two(copied: Path, tmp_path: Path) -> None:
    (copied / "result.json").unlink()
    shutil.move(copied, tmp_path / "both" / "forward")
    (tmp_path / "both" / "backward").mkdir()
    assert cli.execute(["report", str(tmp_path / "both")]) == 0
    text = read(tmp_path / "both").text
    assert "has not finished" in text and "not begun" in text and "backward" in text


def test_a_directory_without_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "both" / "forward").mkdir(parents=True)
    for directory in (tmp_path / "both", tmp_path / "nowhere"):
        assert cli.execute(["report", str(directory)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and directory.name in err


def test_without_torch_and_openmm_the_page_says_what_is_missing(copied: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, str(copied)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = read(copied).text
    assert "committor along the paths is not shown" in text and "is not installed here" in text
    assert "brute force" in text.lower() and "95 of 100" in text


def test_the_command_on_the_page_repeats_the_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, Any] = rlis.load(finished).config
    line = provenance.command(stored, "again")
    assert line is not None and line in read(finished).text
    seen: list[Any] = []
    monkeypatch.setattr(commands, "start", lambda config, out, trusted: seen.append((config, out)) or 0)
    assert cli.execute(shlex.split(line)[1:]) == 0
    again, out = seen[0]
    assert out == Path("again") and again.settings.model_dump(mode="json") == stored["settings"]
    problem = build_problem.build(again)
    assert problem.recipe == stored["recipe"] and again.target_relative_error == stored["target_relative_error"]
    assert (again.seed, again.workers, again.method) == (stored["seed"], stored["workers"], stored["method"])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example of an own system in `one`, and both ways in `two`, as far as they are before the first round."""
    folder = Path(shutil.copytree(ROOT / "examples" / "own_system", tmp_path / "own"))
    runpy.run_path(str(folder / "make_files.py"))["main"](folder)
    monkeypatch.setattr(sampler.Loop, "run", lambda _: SimpleNamespace(stopped="max_seconds"))
    for name, ways in (("one", []), ("two", ["--both"])):
        status = cli.execute(["run", str(folder / "config.yaml"), "--out", str(folder / name), *ways])
        assert status == exit_status.LIMIT
    return folder


def test_the_page_of_an_own_system_names_its_configuration_file(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be run again from that file alone; of both ways the file stands in the directory."""
    for name in ("one", "two"):
        assert cli.execute(["report", str(own / name)]) == 0
    one, two = read(own / "one").text, read(own / "two").text
    assert "started from a configuration file; rlis run with that file" in one and "system.xml, inputs/" in one
    assert "rlis run own:" not in one + two and "started from Python" not in one + two and "again" not in one
    assert all(provenance.is_own(rlis.load(own / path).config) for path in ("one", "two/forward"))
    assert "dihedral of atoms 0, 1, 2, 3 from 150 to 210\N{NO-BREAK SPACE}deg" in one
    line = next(line for line in two.splitlines() if line.startswith("rlis run"))
    seen: list[Any] = []
    monkeypatch.setattr(commands, "start", lambda config, out, trusted: seen.append((config, out)) or 0)
    monkeypatch.chdir(own)
    assert cli.execute(shlex.split(line)[1:]) == 0
    again, out = seen[0]
    assert out == Path("again") and again.both and again.system.name == "chain"
    assert build_problem.build(again.one_way("forward", {})).recipe == rlis.load(own / "two/forward").config["recipe"]


def test_long_options_are_written_whole() -> None:
    options = {"depths": [0.1 * i for i in range(40)], "others": ["C0", "C1"]}
    line = provenance.command({"system": "toy", "options": options, "both": True}, "again")
    assert line is not None and "\n" not in line and "--others C0,C1" in line and line.endswith("--both --out again")
    word = next(word for word in shlex.split(line) if word.startswith("depths="))
    assert yaml_values.parse_assignment(word) == ("depths", options["depths"])


def test_boxes_are_told_by_their_intervals() -> None:
    parts = [rlis.features.Distances([(0, 4)]), rlis.features.Angles([(1, 2, 3)], True),
             rlis.features.Coordinates([(2, 1)])]  # fmt: skip
    box = Box(parts, [-math.inf, 0.5, 1.0], [2.5, math.inf, 2.0], [0.0] * 3, [0.1] * 3)
    told = wording._region(rlis.Region.within(box)).replace(wording.SPACE, " ")
    assert "distance of atoms 0, 4 at most 2.5 nm and angle of atoms 1, 2, 3 at least 28.6479 deg" in told
    assert "y of atom 2 from 1 to 2 nm" in told


def test_a_run_from_python_has_no_command() -> None:
    assert provenance.command({"recipe": None, "system": "custom", "method": "run"}, "again") is None


def test_bibtex_agrees_with_the_citation_file(finished: Path) -> None:
    text, cff = provenance.bibtex(), yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    flat = text.replace("\\_", "_")
    assert text in read(finished).text
    for entry in (cff, *cff["references"]):
        assert f"{{{entry['title']}}}" in flat
        for author in entry["authors"]:
            assert author.get("name", author.get("family-names")) in flat
    assert "2602.12294" in flat and flat.count("@") == 1 + len(cff["references"])


def test_brute_force_is_estimated_as_stated(finished: Path) -> None:
    run = plot_data.load(finished)
    rate, problem = rlis.load(finished).rate, rlis.load(finished).problem
    steps = rlis.load(finished).mean_first_passage_time.value / problem.timestep
    expected = steps * (rate.value / rate.standard_error) ** 2
    assert wording.costs(run)["brute force, estimated"] == pytest.approx(expected)
    assert f"= {wording.number(expected, 2)} force evaluations" in read(finished).text


def test_large_sets_are_thinned_and_say_so(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plot_data.load(finished)
    n_frames = int(run.paths.success().n_frames().sum())
    grouping, _ = projections.channels_of(run, most=n_frames // 2)  # of one atom each
    assert grouping is not None and 0.0 < grouping.used < 1.0
    assert len(grouping.paths) == pytest.approx(grouping.used * run.paths.is_success.sum(), rel=0.3)
    assert sum(share.value for share in grouping.shares.values()) == pytest.approx(1.0)
    most = sum(tree.n_frames for tree in run.paths.trees) // 3
    monkeypatch.setattr(path_figures, "MAX_FRAMES", most)
    scene = path_figures.prepare([run], None)
    text = page.render(replace(scene, channels=[(grouping, "")]), finished)
    step = plot_data.thinning(run.paths, most)
    assert step > 1 and f"one frame in {step}" in text and "of the paths, drawn at random" in text


def test_the_most_telling_distances_are_chosen() -> None:
    """Atom 3 moves away along x; the distances to it tell the ends apart, that of atoms 1 and 2 does not."""
    made = make_run(1, "A", "B")
    rng = np.random.default_rng(0)
    trees = []
    for tree in made.paths.trees:
        positions = 0.05 * rng.normal(size=(tree.n_frames, 3, 3))
        positions[:, 1, 1] += 1.0
        positions[:, 2, 0] += 2.0 + 2.0 * np.isin(np.arange(tree.n_frames), tree.leaves)
        trees.append(replace(tree, positions=positions.astype(np.float32)))
    plane = projections.choose([replace(made, paths=PathEnsemble(trees))])
    assert plane is not None and all("and 3" in label for label in plane.labels)
    assert plane.landmarks["A"][0] + 1.0 < plane.landmarks["B"][0]
    assert projections.choose([made]) is None  # nothing but noise tells these apart


@given(st.integers(0, 2**32 - 1))
def test_flat_views_of_one_structure_are_the_same(seed: int) -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 3)) * [3.0, 2.0, 1.0]
    turned = Rotation.random(random_state=seed).apply(x) + 5.0
    flat, depths = plot_data.seen_flat([x, turned])
    np.testing.assert_allclose(flat[0], flat[1], atol=1e-9)
    np.testing.assert_allclose(depths[0], depths[1], atol=1e-9)
    solid = np.column_stack([flat[0], depths[0]])
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(solid[:, None] - solid, axis=-1), distances, atol=1e-9)
    assert depths[0].std() <= flat[0].std(axis=0).min() + 1e-9


@given(st.floats(1e-30, 1e30), st.floats(0.2, 5.0))
def test_numbers_read_back(value: float, factor: float) -> None:
    superscripts = {ord(high): low for low, high in zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True)}
    for shown in (wording.number(value), wording.number(value * factor, like=value)):
        mantissa, _, exponent = shown.partition("×10")
        read_back = float(mantissa) * 10.0 ** int(exponent.translate(superscripts) or 0)
        assert min(abs(read_back / value - 1.0), abs(read_back / (value * factor) - 1.0)) < 6e-3
    assert wording.number(math.nan) == wording.number(None) == "unknown"


def test_in_a_browser(finished: Path, hostile: Path) -> None:
    """No console message, no request, every picture there, no sideways scrolling on a desk or in a hand."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    measure = (
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth, document.images.length,"
        " [...document.images].filter(image => image.naturalWidth === 0).length]"
    )
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for file in (finished / "report.html", hostile / "report.html"):
            for width in (1400, 400):
                view, messages = browser.new_page(viewport={"width": width, "height": 900}), []
                view.on("console", lambda message, kept=messages: kept.append(message.text))
                view.on("pageerror", lambda error, kept=messages: kept.append(str(error)))
                view.on("request", lambda request, kept=messages: kept.append(request.url))
                view.goto(file.as_uri())
                seen, client, pictures, broken = view.evaluate(measure)
                kept = [text for text in messages if not text.startswith(("data:", file.as_uri()))]
                assert kept == [] and seen <= client and pictures >= 8 and broken == 0, (file, width)
                top = view.locator(".verdict").first.bounding_box()
                assert top is not None and top["y"] + top["height"] < 900.0  # the verdict is on the first screen
                view.close()
        browser.close()
