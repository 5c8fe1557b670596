from __future__ import annotations

import os
import subprocess
import sys

from refund.model.child import child_environment, module_command

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s",
    "AIRFLOW_CONN_REFUND_DB": "s",
    "AIRFLOW__CORE__FERNET_KEY": "s",
    "PGPASSWORD": "s",
    "REFUND_SETTINGS": "s",
    "PIP_INDEX_URL": "s",
    "PYTHONSTARTUP": "s",
    "LD_PRELOAD": "s",
}


def test_a_child_gets_what_it_needs_and_no_secret() -> None:
    kept = {"PATH": "/bin", "HOME": "/home/x", "https_proxy": "p", "LC_ALL": "C"}
    environment = child_environment(kept | SECRETS)
    assert kept.items() <= environment.items()
    assert not environment.keys() & SECRETS.keys()


def test_pip_also_keeps_its_own_settings() -> None:
    assert child_environment(SECRETS, extra_prefixes=("PIP_",))["PIP_INDEX_URL"] == "s"


def test_a_module_of_the_package_runs_in_that_environment() -> None:
    environment = child_environment(dict(os.environ) | {"AWS_SECRET_ACCESS_KEY": "s"})
    done = subprocess.run(
        [sys.executable, "-c", "import os, refund.model; print('AWS_SECRET_ACCESS_KEY' in os.environ)"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
    assert module_command("refund.model.build", "a") == [sys.executable, "-m", "refund.model.build", "a"]
