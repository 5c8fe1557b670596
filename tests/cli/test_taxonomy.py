"""`refund taxonomy` needs no stack: it counts what a taxonomy holds, names its faults and looks classes up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refund.cli import load_app, main
from refund.model.labels import load_labels
from refund.model.taxonomy import DEPARTMENTS, NOT_A_PRODUCT, load_taxonomy
from refund.resources import include_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(load_app(), ["taxonomy", *arguments])


def test_the_check_counts_classes_departments_and_nodes() -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    answer = invoke("check")
    assert answer.exit_code == 0
    first, *table = answer.stdout.splitlines()
    assert first == f"{include_path('taxonomy.csv')}: version {taxonomy.version}, no fault"
    rows = [line.split() for line in table]
    assert rows[0] == ["department", "classes", "nodes"]
    assert ["shoes", "5", "1"] in rows
    assert rows[-2] == [NOT_A_PRODUCT, str(taxonomy.class_categories.count(NOT_A_PRODUCT))]
    assert rows[-1] == ["all", "1000", str(len(taxonomy.nodes()))]
    assert {row[0] for row in rows[1:-1]} == DEPARTMENTS
    assert sum(int(row[1]) for row in rows[1:-1]) == 1000


def test_the_check_as_json_adds_up() -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    body = json.loads(invoke("check", "--json").stdout)
    assert list(body) == ["file", "version", "classes", "departments", "not_a_product", "nodes"]
    assert (body["version"], body["classes"], body["nodes"]) == (taxonomy.version, 1000, len(taxonomy.nodes()))
    assert set(body["departments"]) == DEPARTMENTS - {NOT_A_PRODUCT}
    assert sum(body["departments"].values()) + body["not_a_product"] == 1000


def test_a_faulty_file_ends_with_exit_code_3_and_its_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = include_path("taxonomy.csv").read_text(encoding="utf-8")
    path = tmp_path / "taxonomy.csv"
    path.write_text(text.replace(",shoes,187,", ",sh\x1b[31moes,187,", 1), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["refund", "taxonomy", "check", str(path)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith(f"TaxonomyError: {path} has 1 fault, correct it: line ")
    assert r": 'sh\x1b[31moes' is no department; known are: arts_entertainment, " in written.err


def test_one_class_is_shown_with_its_node() -> None:
    answer = invoke("show", "running shoe")
    assert answer.exit_code == 0
    assert [line.strip().split(maxsplit=4) for line in answer.stdout.splitlines()] == [
        ["class", "name", "department", "node", "path"],
        ["n04120489", "running_shoe", "shoes", "187", "Apparel & Accessories > Shoes"],
    ]


def test_all_that_the_text_may_mean_are_listed() -> None:
    body = json.loads(invoke("show", "crane", "--json").stdout)
    assert [row["class_id"] for row in body] == ["n02012849", "n03126707"]
    assert body[0] == {
        "class_id": "n02012849",
        "class_name": "crane",
        "department": "not_a_product",
        "product_id": None,
        "product_path": None,
    }
    assert "None" not in invoke("show", "crane").stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "runing shoe",
            "no class has the id 'runing shoe', nor that text in its name; spelt most like it: running_shoe; try a "
            "part of the English name, such as shoe, or a WordNet id, such as n04120489\n",
        ),
        (
            "[red]\x1b[31m\n\u202exqzw",
            r"no class has the id '[red]\x1b[31m\n\u202exqzw', nor that text in its name; try a part of the English "
            "name, such as shoe, or a WordNet id, such as n04120489\n",
        ),
        (
            "z" * 10_000,
            f"no class has the id '{'z' * 60}', nor that text in its name; try a part of the English name, such as "
            "shoe, or a WordNet id, such as n04120489\n",
        ),
    ],
)
def test_a_class_that_nobody_knows_is_answered_with_no_and_what_to_try(text: str, told: str) -> None:
    answer = invoke("show", text)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (1, "", told)
    as_json = invoke("show", text, "--json")
    assert (as_json.exit_code, as_json.stdout, as_json.stderr) == (1, "[]\n", told)
