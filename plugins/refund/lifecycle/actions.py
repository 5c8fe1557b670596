"""What the DAG ``refund_model`` does, by the action that its form names: the same functions as the command line's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from refund.model_params import ModelParams

if TYPE_CHECKING:
    from refund.night.services import Services

log = logging.getLogger(__name__)


def run_action(params: ModelParams, services: Services, *, by: str, request: str) -> dict[str, Any]:
    """Do what ``params.action`` says; returns what came of it as JSON values.

    A promotion or rollback is made once per ``request``, however often the task is cleared.

    Raises:
        ConfigurationError: as the action does; `ModelArtefactError` lists what `verify` found wrong.
    """
    asked = {"request": request} if params.action in {"promote", "rollback"} else {}
    answer = ACTS[params.action](params, services, by, **asked)
    log.info("%s by %s: %s", params.action, by, answer)
    return answer


def _verify(params: ModelParams, services: Services, _by: str) -> dict[str, Any]:
    from refund.lifecycle.verify import require_sound, verify_models

    verified = verify_models(services, params.model, progress=log.info)
    require_sound(verified)
    return {"sound": [one.model for one in verified]}


def _build(params: ModelParams, services: Services, by: str) -> dict[str, Any]:
    from refund.lifecycle.build import build_and_register

    outcome = build_and_register(
        services,
        weights=params.weights,
        alpha=params.alpha,
        input_px=params.input_px,
        calibrate=params.calibrate,
        packaged=params.packaged,
        allow_fallback=False,
        champion=False,
        by=by,
        reason=params.reason or "",
        progress=log.info,
    )
    return outcome.as_json()


def _import(params: ModelParams, services: Services, by: str) -> dict[str, Any]:
    from refund.lifecycle.import_model import import_model

    return {"model": import_model(services, params.source or "", by=by, progress=log.info).row.model}


def _list(_params: ModelParams, services: Services, _by: str) -> dict[str, Any]:
    return {"models": [row.as_json() for row in services.registry.list()]}


def _show(params: ModelParams, services: Services, _by: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(services.registry.resolve(params.model or params.alias).card.to_json())
    return card


def _diff(params: ModelParams, services: Services, _by: str) -> dict[str, Any]:
    from refund.lifecycle.diff import diff_models

    return diff_models(services, params.model or "", params.other or params.alias).as_json()


def _history(params: ModelParams, services: Services, _by: str) -> dict[str, Any]:
    return {"changes": [change.as_json() for change in services.registry.history(params.alias)[::-1]]}


def _evaluate(params: ModelParams, services: Services, by: str) -> dict[str, Any]:
    from refund.lifecycle.evaluate import evaluate_model

    done = evaluate_model(
        services,
        model=params.model or "",
        where=params.labels or "",
        threshold=params.threshold,
        by=by,
        progress=log.info,
    )
    figures = done.figures
    return {
        "model": done.model,
        "evaluation_id": done.evaluation_id,
        "photos": done.photos,
        "accuracy": figures.accuracy.value,
        "macro_f1": figures.macro_f1.value,
    }


def _promote(params: ModelParams, services: Services, by: str, *, request: str) -> dict[str, Any]:
    from refund.lifecycle.promote import promote

    return promote(
        services,
        params.model or "",
        alias=params.alias,
        by=by,
        reason=params.reason or "",
        override=params.override,
        request=request,
    ).as_json()


def _rollback(params: ModelParams, services: Services, by: str, *, request: str) -> dict[str, Any]:
    move = services.registry.rollback(params.alias, by=by, reason=params.reason or "", request=request)
    return move.as_json()


def _retire(params: ModelParams, services: Services, by: str) -> dict[str, Any]:
    row = services.registry.resolve(params.model or "")
    return {"model": row.model, "changed": services.registry.retire(row.model, by=by, reason=params.reason or "")}


ACTS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "verify": _verify,
    "list": _list,
    "show": _show,
    "diff": _diff,
    "history": _history,
    "build": _build,
    "import": _import,
    "evaluate": _evaluate,
    "promote": _promote,
    "rollback": _rollback,
    "retire": _retire,
}
