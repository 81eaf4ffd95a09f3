"""The pages for leads: the dashboard, disputes, guidelines."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from labelwright.ledger import queue_view as view
from labelwright.web.board import board
from labelwright.web.forms import row_key
from labelwright.web.guard import POLICY, hash_of
from labelwright.web.site import Site, Visitor


def owner(app: FastAPI, site: Site) -> None:
    """Adds the pages that only leads may see."""
    _dashboard(app, site)
    _disputes(app, site)
    _guidelines(app, site)


def _only_leads(site: Site) -> Any:
    def lead(request: Request) -> Visitor:
        who = site.visitor(request)
        if not who.lead:
            raise HTTPException(403, "This page is for leads; 'labelwright experts add NAME --lead' makes one.")
        return who

    return lead


def _dashboard(app: FastAPI, site: Site) -> None:
    Lead = Annotated[Visitor, Depends(_only_leads(site))]
    desk = site.desk

    @app.get("/board")
    def dashboard(request: Request, who: Lead) -> Response:
        told = desk.cached("board", 3.0, lambda: board(desk))
        figure = desk.cached("noise figure", 20.0, lambda: _noise_figure(told["series"]))
        out = site.page("board.html.j2", request, who, b=told, figure=figure)
        out.headers["content-security-policy"] = POLICY.format(
            style="'unsafe-inline'",
            script=hash_of(site.starter),  # the figure's styles
        )
        return out


def _noise_figure(points: list[dict[str, Any]]) -> dict[str, str] | None:
    from labelwright.report.figures import for_page, noise

    return for_page(noise, {"batches": points}, (8.8, 2.8), (4.1, 3.2), "noise") if points else None


def _disputes(app: FastAPI, site: Site) -> None:
    Form = Annotated[dict[str, str], Depends(site.form)]
    Lead = Annotated[Visitor, Depends(_only_leads(site))]
    desk = site.desk

    @app.get("/disputes")
    def disputes(request: Request, who: Lead) -> Response:
        rows = view.disputed(desk.history.engine)
        for row in rows:
            table = desk.shelf.row(row["key"])
            row["fields"] = desk.fields(row["key"], table, []) if table is not None else []
            row["id"] = desk.shelf.id_of(row["key"])
        return site.page("disputes.html.j2", request, who, rows=rows, classes=desk.classes)

    @app.post("/disputes")
    def decided(request: Request, who: Lead, form: Form) -> Response:
        site.checked(who, form)
        label = desk.code(form.get("name", "").strip())
        view.decide(desk.history.engine, who.name, row_key(form.get("key", "")), label, len(desk.classes))
        return RedirectResponse("/disputes", 303)


def _guidelines(app: FastAPI, site: Site) -> None:
    Form = Annotated[dict[str, str], Depends(site.form)]
    Lead = Annotated[Visitor, Depends(_only_leads(site))]
    desk = site.desk

    @app.get("/guidelines")
    def guidelines(request: Request, who: Lead) -> Response:
        return site.page("guidelines.html.j2", request, who, texts=desk.people.guidelines(), classes=desk.classes)

    @app.post("/guidelines")
    def written(request: Request, who: Lead, form: Form) -> Response:
        site.checked(who, form)
        names = ["", *desk.classes]
        told = desk.people.guidelines()
        told |= {
            names[int(f[5:])]: text
            for f, text in form.items()
            if f.startswith("text-") and f[5:].isdecimal() and len(f) < 12 and int(f[5:]) < len(names)
        }
        name = form.get("class", "").strip()
        if name:
            told[desk.classes[desk.code(name)]] = form.get("text", "")
        desk.people.write_guidelines(told)
        return RedirectResponse("/guidelines", 303)
