"""Who did what."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.errors import InvalidRequest
from app.pages.page import LARGEST_ID, page
from app.services import this_app
from app.storage import audit

blueprint = Blueprint("audit", __name__)
AUDIT_PAGE = 50


@blueprint.get("/admin/audit")
@endpoint("session", documented=False)
def audit_log() -> AnyResponse:
    before = request.args.get("before", type=int)
    if before is not None and not 0 <= before <= LARGEST_ID:
        raise InvalidRequest("There is no such page of the audit log.", param="before")
    entries = audit.entries(this_app(), limit=AUDIT_PAGE + 1, before_id=before)
    older = entries[AUDIT_PAGE - 1].id if len(entries) > AUDIT_PAGE else None
    return page(render_template("admin/audit.html", entries=entries[:AUDIT_PAGE], older=older, before=before))
