"""The pages: requests in, HTML out. What is shown and done is in :mod:`labelwright.web.desk`."""

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import quote

from anyio import to_thread
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi import Path as Path_
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

import labelwright
from labelwright.errors import DataError, LabelwrightError
from labelwright.ledger.people import checked_name
from labelwright.web.api import api
from labelwright.web.desk import LATE, Desk
from labelwright.web.forms import count_of, row_key, seconds_since
from labelwright.web.guard import Guard
from labelwright.web.owner import owner
from labelwright.web.site import NAMED, TOKEN, Site, Visitor
from labelwright.web.suggest import label_studio

GRID = 24
THREADS = 4
"""Requests worked on at once: the database takes one writer at a time, and more threads only stand in each other's way."""
MONTH = 30 * 24 * 3600
YEAR = 12 * MONTH


def create_app(desk: Desk, *, local: bool = True, accounts: bool | None = None, secure: bool = False) -> FastAPI:
    """The site as an ASGI application. local: for this machine alone. accounts: a token is needed (default: unless local).
    secure: it is reached by TLS, so cookies go by nothing else.
    """
    site = Site(desk, accounts=not local if accounts is None else accounts, secure=secure)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    app = FastAPI(
        title="labelwright",
        version=labelwright.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=life,
    )
    app.state.desk, app.state.site = desk, site
    app.add_middleware(Guard, local=local, secure=secure, policy=site.policy)
    _errors(app, site)
    _doors(app, site)
    _questions(app, site)
    _grid(app, site)
    owner(app, site)
    api(app, site)
    label_studio(app, site.suggestions, site.who)
    return app


def _errors(app: FastAPI, site: Site) -> None:
    @app.exception_handler(LabelwrightError)
    def told(request: Request, error: LabelwrightError) -> Response:
        return answer(request, 400 if isinstance(error, DataError) else 503, str(error))

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> Response:
        page = request.method == "GET" and not request.url.path.startswith(("/api", "/label-studio", "/picture"))
        if error.status_code == 401 and page:
            return RedirectResponse("/login", 303)
        return answer(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def bent(request: Request, error: RequestValidationError) -> Response:
        parts = ", ".join(dict.fromkeys(str(part) for found in error.errors() for part in found["loc"][1:2]))
        return answer(request, 422, f"The request does not fit: {parts[:200] or 'no JSON'}.")

    def answer(request: Request, status: int, text: str) -> Response:
        if request.url.path.startswith(("/api", "/label-studio")):
            return JSONResponse({"error": text}, status)
        if request.headers.get("hx-request") == "true":
            return HTMLResponse(html.escape(text), status)  # it becomes part of the page
        return site.page("message.html.j2", request, None, status, text=text)


def _doors(app: FastAPI, site: Site) -> None:
    Form = Annotated[dict[str, str], Depends(site.form)]

    @app.get("/login")
    def login(request: Request) -> Response:
        return site.page("login.html.j2", request, None, problem="")

    @app.post("/login")
    def come_in(request: Request, form: Form) -> Response:
        if not site.accounts:
            return RedirectResponse("/", 303)
        token = form.get("token", "").strip()
        if site.checked_token(request, token) is None:
            return site.page("login.html.j2", request, None, 401, problem="That token is not known here.")
        out = RedirectResponse("/", 303)
        out.set_cookie(TOKEN, token, max_age=MONTH, httponly=True, secure=site.secure, samesite="strict")
        return out

    @app.post("/logout")
    def leave(request: Request, form: Form) -> Response:
        site.checked(site.visitor(request), form)
        out = RedirectResponse("/login" if site.accounts else "/", 303)
        out.delete_cookie(TOKEN)
        out.delete_cookie(NAMED)
        return out

    @app.post("/name")
    def call(request: Request, form: Form) -> Response:
        site.checked(site.visitor(request), form)
        out = RedirectResponse("/", 303)
        if not site.accounts:
            name = checked_name(form.get("name", ""))
            out.set_cookie(NAMED, quote(name), max_age=MONTH, httponly=True, samesite="strict")
        return out

    @app.get("/favicon.ico", status_code=204)
    def icon() -> None:
        return None

    @app.get("/static/page.js")
    async def scripts() -> Response:
        held = {"cache-control": f"max-age={YEAR}, immutable"}  # the address changes with them
        return Response(site.scripts, media_type="text/javascript", headers=held)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "version": labelwright.__version__}


def _questions(app: FastAPI, site: Site) -> None:
    Form = Annotated[dict[str, str], Depends(site.form)]
    Who = Annotated[Visitor, Depends(site.who)]
    desk = site.desk

    @app.get("/")
    def question(request: Request, who: Who) -> Response:
        return site.question(request, who)

    @app.post("/answer")
    def answered(request: Request, who: Who, form: Form) -> Response:
        site.checked(who, form)
        said = form.get("say", "")
        if not said and form.get("name", "").strip():
            said = "~" + form["name"].strip()
        live = request.headers.get("hx-request") == "true"
        seconds = seconds_since(form.get("shown"), desk.queue.clock())
        try:
            message, items = desk.say(who.name, row_key(form.get("key", "")), said, seconds, count=int(live))
        except DataError as error:
            if not live:
                raise
            return site.question(request, who, str(error), status=400)  # and the next question, where this one is gone
        return site.question(request, who, message, items) if live else RedirectResponse("/", 303)

    @app.post("/undo")
    def undone(request: Request, who: Who, form: Form) -> Response:
        site.checked(who, form)
        back = desk.queue.undo(who.name)
        message = (
            "Taken back: here it is again."
            if back is not None
            else "There is nothing to take back: the models have it."
        )
        return (
            site.question(request, who, message)
            if request.headers.get("hx-request") == "true"
            else RedirectResponse("/", 303)
        )

    @app.get("/picture/{key}/{column}")
    def picture(
        key: Annotated[int, Path_(ge=0, lt=2**63)], column: Annotated[int, Path_(ge=0, lt=10**6)], who: Who
    ) -> Response:
        row = desk.shelf.row(key)
        name = row.column_names[column] if row is not None and 0 <= column < row.num_columns else None
        found = desk.shelf.picture(key, name) if name is not None and name not in desk.hidden else None
        if found is None:
            raise HTTPException(404, "There is no such picture; the row may have been erased.")
        return Response(found[0], media_type=found[1], headers={"cache-control": "private, max-age=300"})


def _grid(app: FastAPI, site: Site) -> None:
    Form = Annotated[dict[str, str], Depends(site.form)]
    Who = Annotated[Visitor, Depends(site.who)]
    desk = site.desk

    @app.get("/grid")
    def grid(request: Request, who: Who, done: str = "", late: str = "", gone: str = "") -> Response:
        questions = desk.several(who.name, GRID)
        return site.page(
            "grid.html.j2",
            request,
            who,
            questions=questions,
            done=count_of(done),
            late=count_of(late),
            gone=count_of(gone),
        )

    @app.post("/grid")
    def chosen(request: Request, who: Who, form: Form) -> Response:
        site.checked(who, form)
        picked = {name: value for name, value in form.items() if name.startswith("row-") and value}
        counts = {"done": 0, "late": 0, "gone": 0}
        for name, said in picked.items():
            try:
                told, _ = desk.say(who.name, row_key(name[4:]), said, None)
                counts["late" if told == LATE else "done"] += 1
            except DataError:
                counts["gone"] += 1  # the others are saved all the same
        return RedirectResponse("/grid?" + "&".join(f"{name}={n}" for name, n in counts.items() if n), 303)

    @app.get("/corrections")
    def corrections(request: Request, who: Who, done: str = "", later: str = "") -> Response:
        found = desk.corrections(GRID)
        return site.page("corrections.html.j2", request, who, found=found, done=count_of(done), later=bool(later))

    @app.post("/corrections")
    def reviewed(request: Request, who: Who, form: Form) -> Response:
        site.checked(who, form)
        verdicts = {row_key(name[4:]): value for name, value in form.items() if name.startswith("row-")}
        taken, now = desk.review(who.name, verdicts)
        return RedirectResponse(f"/corrections?done={taken}" + ("" if now else "&later=1"), 303)
