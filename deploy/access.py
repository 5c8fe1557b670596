"""Makes the roles of Airflow's FAB auth manager and one login of each; run by airflow-init after `airflow db migrate`.

Viewer and Admin are FAB's own, but for one right that Viewer is given. Operator and Clerk are ours: FAB's Op may also
edit connections, variables and pools, which means reading every credential; FAB's User may delete runs. An existing
login keeps its password and its roles.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# To show entries of plugins, Airflow's page asks for the plugins, and FAB's Viewer may not: no "Refund desk" for them.
NAVIGATION = ("can_read", "Plugins")
ADDS = {  # what our roles may do besides Viewer
    "Operator": (  # start, clear, mark and pause, and so write on the refund desk; nothing may be deleted
        ("can_edit", "DAGs"),
        ("can_create", "DAG Runs"),
        ("can_edit", "DAG Runs"),
        ("can_create", "Task Instances"),
        ("can_edit", "Task Instances"),
        ("can_create", "Backfills"),
        ("can_edit", "Backfills"),
    ),
    # Write on the refund desk and nowhere else: `can_edit` on `DAG:refund_nightly` would do, but also pause the night.
    "Clerk": (("can_edit", "Refund Desk"),),
}
LOGINS = {"viewer": "Viewer", "clerk": "Clerk", "operator": "Operator", "admin": "Admin"}  # login: role


def password_variable(login: str) -> str:
    """The environment variable with a login's first password."""
    return f"AIRFLOW_{login.upper()}_PASSWORD"


def make_access(security: Any, environ: dict[str, str]) -> list[str]:
    """Bring our roles to exactly their permissions and add the logins that are missing.

    Args:
        security: FAB's security manager, its own roles already in place.
        environ: Where the first passwords stand.

    Returns:
        What was done, one line each; no password is in it.
    """
    missing = [name for login in LOGINS if not environ.get(name := password_variable(login))]
    if missing:
        msg = f"{', '.join(missing)} not set; `make env` writes them to .env, docker-compose.yaml hands them on"
        raise SystemExit(msg)
    viewer = security.find_role("Viewer")
    security.add_permission_to_role(viewer, security.create_permission(*NAVIGATION))
    done = []
    for name, adds in ADDS.items():
        role = security.add_role(name)
        wanted = list(viewer.permissions) + [security.create_permission(*pair) for pair in adds]
        for permission in [held for held in role.permissions if held not in wanted]:
            security.remove_permission_from_role(role, permission)
        for permission in wanted:
            security.add_permission_to_role(role, permission)
        done.append(f"role {name}: {len(wanted)} permissions")
    for login, role_name in LOGINS.items():
        if security.find_user(username=login):
            done.append(f"login {login}: kept as it is")
            continue
        security.add_user(
            username=login,
            first_name=login.capitalize(),
            last_name="Refund",
            email=f"{login}@localhost",
            role=security.find_role(role_name),
            password=environ[password_variable(login)],
        )
        done.append(f"login {login}: made, with role {role_name}")
    return done


def main() -> None:
    """Open FAB's application as its own commands do."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    @providers_configuration_loaded
    def run() -> list[str]:
        with get_application_builder() as builder:
            builder.add_permissions(update_perms=True)
            builder.sm.sync_roles()
            return make_access(builder.sm, dict(os.environ))

    for line in run():
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
