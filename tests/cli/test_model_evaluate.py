"""`refund model evaluate`: a table for people, JSON for machines, a plot where asked for."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from refund.cli import load_app, model_evaluate
from refund.errors import LabelledSetError
from refund.model.taxonomy import DEPARTMENTS
from refund.night.services import Services, open_services
from refund.report.labels import category_label
from refund.settings import S3Access, Settings
from tests.conftest import Roles, make_bucket
from tests.night.factories import jpeg, write_model


@pytest.fixture(scope="module")
def stores(database: Roles, s3_moto: S3Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The stores of this module, with one registered model."""
    folder = tmp_path_factory.mktemp("evaluate")
    s3 = replace(s3_moto, bucket=f"cli-{secrets.token_hex(6)}")
    make_bucket(s3)
    settings = Settings(cache_dir=str(folder / "cache"), decode_workers=1, inference_threads=1)
    with open_services(settings=settings, s3=s3, database=database.app) as opened:
        write_model(folder / "model", name=f"m{secrets.token_hex(3)}")
        opened.registry.register(folder / "model", created_by="test")
        yield opened


@pytest.fixture
def services(stores: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """The stores that commands of this test are given."""

    @contextmanager
    def given() -> Iterator[Services]:
        yield stores

    monkeypatch.setattr(model_evaluate, "command_services", given)
    return stores


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for category, count in (("shoes", 4), ("clothing", 12)):
        (folder / category).mkdir(parents=True)
        for number in range(count):
            (folder / category / f"{number}.jpg").write_bytes(jpeg(number + 100 * len(category)))
    (folder / "shoes" / "again.jpg").write_bytes(jpeg(500))
    (folder / "shoes" / "[red]broken.jpg").write_bytes(b"text")
    (folder / "notes.txt").write_text("labelled by ada")
    return folder


def run(services: Services, *arguments: str | Path, code: int = 0) -> Result:
    model = services.registry.list()[0].model
    command = ["model", "evaluate", model, *map(str, arguments)]
    result = CliRunner().invoke(load_app(), command, catch_exceptions=code != 3)
    assert result.exit_code == code, result.output
    return result


def test_the_table_tells_figures_intervals_departments_and_what_was_left_out(services: Services, photos: Path) -> None:
    out = run(services, "--labels", photos, "--plot", photos / "p.png").stdout
    assert (photos / "p.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"16 photographs classified of 17, taxonomy \S+, evaluation \d+, \d+\.\d s", out)
    assert "1 photographs are there more than once and count once" in out
    assert "1 files are named otherwise than photographs and were passed over" in out
    assert "1 photographs were rejected and are in no ratio, for example" in out
    assert "[red]broken.jpg: not_an_image" in out
    for figure in ("accuracy (category)", "macro-F1", "calibration error (ECE)", "automatic at threshold 0.5"):
        assert re.search(rf"^{re.escape(figure)} +\d\.\d{{3}} +\d\.\d{{3}} to \d\.\d{{3}}", out, re.MULTILINE)
    assert re.search(r"^Shoes +4\* +\d", out, re.MULTILINE)
    assert re.search(r"^Clothing +12  +\d", out, re.MULTILINE)
    assert "* fewer than 10 photographs" in out
    assert "top-1 (class)" not in out  # no label names a class
    assert "Reliability diagram of" not in out  # it is in the plot's description
    header = out.split("\n\n")[1].splitlines()[0]
    longest = max(len(category_label(name)) for name in DEPARTMENTS)
    assert longest + 2 + len(header) - header.index("photos") <= 120  # whichever departments the set has
    assert re.search(r"^Plot: s3://.*\.png$", out, re.MULTILINE)


def test_json_is_the_evaluation_as_it_is_kept(services: Services, photos: Path) -> None:
    arguments = ("--labels", photos, "--threshold", "0.25", "--plot", photos / "p.SVG", "--json")
    answer = json.loads(run(services, *arguments).stdout)
    assert (photos / "p.SVG").read_bytes().startswith(b"<?xml")
    sql = (
        f"SELECT figures, threshold, set_sha256 FROM refund.evaluation WHERE evaluation_id = {answer['evaluation_id']}"
    )
    assert services.repository.select(sql)[1] == [(answer["figures"], 0.25, answer["set_sha256"])]
    assert [Path(entry["photo"]).name for entry in answer["rejected"]] == ["[red]broken.jpg"]


@pytest.mark.slow
def test_a_plot_that_cannot_be_written_costs_the_plot(
    services: Services, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    result = run(services, "--labels", photos, "--plot", tmp_path / "p.png")
    assert "accuracy (category)" in result.stdout
    assert f"The plot could not be written to {tmp_path / 'p.png'}: [Errno 28] No space left on device" in result.stderr


def test_wrong_usage_is_told_before_anything_is_classified(services: Services, photos: Path, tmp_path: Path) -> None:
    kept = services.repository.select("SELECT count(*) FROM refund.evaluation")[1]
    for arguments, said in (
        (("--plot", tmp_path / "p.jpg"), f"{tmp_path / 'p.jpg'} ends with .jpg; expected .png or .svg"),
        (("--plot", tmp_path / "p"), f"{tmp_path / 'p'} ends with nothing; expected .png or .svg"),
        (("--plot", tmp_path / "none" / "p.png"), f"there is no folder {tmp_path / 'none'} to write p.png to"),
        (("--threshold", "1.5"), "Input should be less than or equal to 1"),
        (("--threshold", "nan"), "Input should be less than or equal to 1"),
        (("--threshold", "-1"), "Input should be greater than or equal to 0"),
    ):
        result = run(services, "--labels", photos, *arguments, code=2)
        told = "".join(result.stderr.replace("│", " ").split())  # a box breaks lines, paths too
        assert f"Invalidvaluefor{arguments[0]}:{''.join(said.split())}╰" in told.replace("'", "").replace("─", "")
    assert services.repository.select("SELECT count(*) FROM refund.evaluation")[1] == kept


def test_bad_labels_reach_the_command_line_as_an_error_of_ours(services: Services, tmp_path: Path) -> None:
    with pytest.raises(LabelledSetError, match="cannot be read: there is no such file"):
        run(services, "--labels", tmp_path / "gone.csv", code=3)
