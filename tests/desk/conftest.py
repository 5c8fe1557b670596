"""The desk's app on real stores, with whoever a test wants signed in; Airflow's logins are tested on the live stack."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from refund.settings import S3Access
from tests.conftest import Roles
from tests.night.conftest import World, new_world, world  # noqa: F401  (a fixture)

PHOTO = "image/jpeg"


@dataclass(frozen=True, kw_only=True)
class DeskWorld:
    """A world with a desk in it."""

    world: World
    app: Any
    sign_in: Callable[..., Any]  # sign_in(name="clerk", may_write=True) -> a client (Starlette's TestClient)

    @property
    def services(self) -> Any:
        return self.world.services


@pytest.fixture(scope="session", autouse=True)
def _airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Importing the desk imports Airflow, which writes its configuration where it is told to live."""
    with pytest.MonkeyPatch.context() as patch:
        if "AIRFLOW_HOME" not in os.environ:
            patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield


@contextmanager
def desk_in(world: World, **settings: Any) -> Iterator[DeskWorld]:  # noqa: F811
    """A desk over these stores, with these settings changed."""
    from fastapi.testclient import TestClient

    from refund.desk.app import PREFIX, create_app
    from refund.desk.auth import Visitor, guard
    from refund.desk.wiring import Desk

    services = replace(world.services, settings=replace(world.services.settings, **settings))
    app = create_app(Desk(lambda: nullcontext(services)))
    with ExitStack() as stack:

        def sign_in(name: str = "clerk", *, may_write: bool = True) -> TestClient:
            """A client; whoever signed in last is the one that asks."""
            app.dependency_overrides[guard] = lambda: Visitor(name=name, may_write=may_write)
            client = TestClient(app, root_path=PREFIX, raise_server_exceptions=False)
            return stack.enter_context(client)

        try:
            yield DeskWorld(world=replace(world, services=services), app=app, sign_in=sign_in)
        finally:
            app.state.desk.close()


@pytest.fixture
def desk(world: World) -> Iterator[DeskWorld]:  # noqa: F811
    """A desk of this test alone."""
    with desk_in(world) as made:
        yield made


@pytest.fixture(scope="module")
def shared_world(postgres: Roles, s3_moto: S3Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that the tests of a module share: for those that only read."""
    folder: Path = tmp_path_factory.mktemp("world")
    with new_world(postgres, s3_moto, folder) as made:
        yield made
