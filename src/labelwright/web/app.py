"""The pages: requests in, HTML out. What is shown and done is in :mod:`labelwright.web.desk`."""

import getpass
import html
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from anyio import to_thread
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi import Path as Path_
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

import labelwright
from labelwright.errors import DataError, LabelwrightError
from labelwright.interchange import bytes_of
from labelwright.ledger import queue_view as view
from labelwright.ledger.people import NAME, checked_name
from labelwright.ledger.queue import Item
from labelwright.report import words
from labelwright.web.board import board
from labelwright.web.desk import LATE, Desk
from labelwright.web.guard import POLICY, Guard, Rate, same, signed
from labelwright.web.suggest import Suggestions, label_studio


class Said(BaseModel):
    """An answer as a script gives it. label: a class, or kind: unsure, none, broken or skip."""

    key: int = Field(ge=0, lt=2**63)
    label: str | None = Field(None, max_length=10_000)
    kind: str = Field("", max_length=20)
    seconds: float | None = Field(None, ge=0, le=86_400)


HERE = Path(__file__).parent
REPORT = Path(labelwright.report.__file__).parent
GRID = 24
TOKEN, NAMED = "labelwright_token", "labelwright_name"
THREADS = 4
"""Requests worked on at once: the database takes one writer at a time, and more threads only stand in each other's way."""
MONTH = 30 * 24 * 3600


@dataclass(frozen=True)
class Visitor:
    """Who asks. csrf: what the visitor's forms must bring along; "" when a header said who it is, which no form can."""

    name: str
    lead: bool
    csrf: str


class Site:
    """The pages of one desk. accounts: a token is needed. secure: cookies go by TLS only."""

    def __init__(self, desk: Desk, *, accounts: bool, secure: bool):
        self.desk, self.accounts, self.secure = desk, accounts, secure
        self.secret = desk.people.secret()
        self.logins, self.requests = Rate(10, 60.0), Rate(1000, 5.0)
        self.suggestions = Suggestions(desk)
        places = FileSystemLoader([HERE / "templates", REPORT])
        self.templates = Environment(
            loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        # the sheet stands in the page: a browser waits for a file of its own, and a new tab for a connection besides
        self.style = "\n".join(place.read_text() for place in (REPORT / "style.css", HERE / "static" / "page.css"))
        self.templates.globals["style"] = Markup(self.style)
        self.templates.filters |= {"percent": words.percent, "count": lambda n: f"{n:,}"}

    # ------------------------------------------------------------ who it is

    async def who(self, request: Request) -> Visitor:
        """As :meth:`visitor`, for FastAPI; without accounts there is nothing to wait for."""
        return await run_in_threadpool(self.visitor, request) if self.accounts else self.visitor(request)

    def visitor(self, request: Request) -> Visitor:
        """Who asks. Raises HTTPException 401 without a good token, 429 when it asks too often."""
        found = self._by_token(request) if self.accounts else self._by_name(request)
        if found is None:
            raise HTTPException(401, "A token is needed; the owner makes one with 'labelwright experts add NAME'.")
        if not self.requests.allows(found.name):
            raise HTTPException(429, "That was too many requests at once; wait some seconds. Nothing was saved.")
        return found

    def _by_token(self, request: Request) -> Visitor | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":  # Label Studio's way: any user, the token as password
            token = (bytes_of("data:;base64," + token.strip()) or b"").decode("latin-1").partition(":")[2]
        if kind:
            person = self._checked(request, token.strip())
            return None if person is None else Visitor(person.name, person.lead, "")
        token = request.cookies.get(TOKEN, "")
        person = self._checked(request, token) if token else None
        return None if person is None else Visitor(person.name, person.lead, signed(self.secret, token))

    def _checked(self, request: Request, token: str) -> Any:
        person = self.desk.people.who(token)
        address = request.client.host if request.client else "?"
        if person is None and not self.logins.allows(address):
            raise HTTPException(429, "Too many wrong tokens; wait a minute.")
        return person

    def _by_name(self, request: Request) -> Visitor:
        said = request.headers.get("x-expert") or unquote(request.cookies.get(NAMED, ""))
        try:
            name = checked_name(said) if said else this_user()
        except DataError:
            name = this_user()
        csrf = "" if request.headers.get("x-expert") else signed(self.secret, name)
        return Visitor(name, True, csrf)

    async def form(self, request: Request) -> dict[str, str]:
        """A form's fields; a repeated one's last value. Raises HTTPException 403 for a form that is not of these pages."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise HTTPException(403, "This form comes from another site; nothing was saved.")
        fields = await request.form(max_files=0, max_fields=400)
        return {name: value for name, value in fields.items() if isinstance(value, str)}

    def checked(self, visitor: Visitor, form: Mapping[str, str]) -> None:
        """Raises HTTPException 403 when a form was not made for this visitor."""
        if visitor.csrf and not same(form.get("csrf", ""), visitor.csrf):
            raise HTTPException(403, "This form is too old or not yours; load the page again. Nothing was saved.")

    # ------------------------------------------------------------ what comes back

    def page(
        self, name: str, request: Request, visitor: Visitor | None, status: int = 200, **told: Any
    ) -> HTMLResponse:
        """A template as a response; only its core for htmx."""
        bare = request.headers.get("hx-request") == "true"
        more = {"v": visitor, "bare": bare, "accounts": self.accounts, "version": labelwright.__version__, **told}
        return HTMLResponse(self.templates.get_template(name).render(more), status)

    def question(
        self,
        request: Request,
        visitor: Visitor,
        message: str = "",
        items: list[Item] | None = None,
        status: int = 200,
    ) -> HTMLResponse:
        """The next question, or that there is none."""
        desk, now = self.desk, self.desk.queue.clock()
        return self.page(
            "question.html.j2", request, visitor, status,
            q=desk.question(visitor.name, items), message=message, now=f"{now:.2f}", progress=desk.progress(),
            mine=desk.bought(visitor.name),
            choices=desk.choices(), classes=desk.classes, guidelines=desk.cached("guidelines", 2.0, desk.people.guidelines),
        )  # fmt: skip


def this_user() -> str:
    """Who runs the server, as the system says."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "expert"


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
    app.add_middleware(Guard, local=local, secure=secure, style=site.style)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    _errors(app, site)
    _doors(app, site)
    _questions(app, site)
    _grid(app, site)
    _owner(app, site)
    _api(app, site)
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
        if site._checked(request, token) is None:
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


def _owner(app: FastAPI, site: Site) -> None:
    Form = Annotated[dict[str, str], Depends(site.form)]
    desk = site.desk

    def lead(request: Request) -> Visitor:
        who = site.visitor(request)
        if not who.lead:
            raise HTTPException(403, "This page is for leads; 'labelwright experts add NAME --lead' makes one.")
        return who

    Lead = Annotated[Visitor, Depends(lead)]

    @app.get("/board")
    def dashboard(request: Request, who: Lead) -> Response:
        told = desk.cached("board", 3.0, lambda: board(desk))
        figure = desk.cached("noise figure", 20.0, lambda: _noise_figure(told["series"]))
        out = site.page("board.html.j2", request, who, b=told, figure=figure)
        out.headers["content-security-policy"] = POLICY.format(style="'unsafe-inline'")  # the figure's
        return out

    @app.get("/disputes")
    def disputes(request: Request, who: Lead) -> Response:
        rows = view.disputed(desk.history.engine)
        for row in rows:
            table = desk.shelf.row(row["key"])
            row["fields"] = desk._fields(row["key"], table, []) if table is not None else []
            row["id"] = desk.shelf.id_of(row["key"])
        return site.page("disputes.html.j2", request, who, rows=rows, classes=desk.classes)

    @app.post("/disputes")
    def decided(request: Request, who: Lead, form: Form) -> Response:
        site.checked(who, form)
        label = desk.code(form.get("name", "").strip())
        view.decide(desk.history.engine, who.name, row_key(form.get("key", "")), label, len(desk.classes))
        return RedirectResponse("/disputes", 303)

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


def _noise_figure(points: list[dict[str, Any]]) -> dict[str, str] | None:
    from labelwright.report.figures import for_page, noise

    return for_page(noise, {"batches": points}, (8.8, 2.8), (4.1, 3.2), "noise") if points else None


def _api(app: FastAPI, site: Site) -> None:
    Who = Annotated[Visitor, Depends(site.who)]
    desk = site.desk

    def named(who: Visitor) -> None:
        if who.csrf:
            raise HTTPException(
                403, "Say who asks in a header: 'Authorization: Bearer TOKEN', or 'X-Expert: NAME' on this machine."
            )

    def item(found: list[Item]) -> dict[str, Any] | None:
        if not found:
            return None
        one = found[0]
        told = {"key": one.key, "id": desk.shelf.id_of(one.key), "given": desk.classes[one.given], "until": one.until}
        return told | ({} if one.blind else {"suggestion": desk.classes[one.suggestion], "confidence": one.confidence})

    @app.get("/api/next")
    def upcoming(who: Who) -> dict[str, Any]:
        named(who)
        return {"item": item(desk.queue.serve(who.name))}

    @app.post("/api/answer")
    def answer(who: Who, said: Said) -> dict[str, Any]:
        named(who)
        word = f"~{said.label}" if said.label is not None else said.kind
        message, items = desk.say(who.name, said.key, word, said.seconds, count=1)
        return {"message": message, "item": item(items)}

    @app.post("/api/undo")
    def undo(who: Who) -> dict[str, Any]:
        named(who)
        return {"key": desk.queue.undo(who.name)}

    @app.get("/api/progress")
    def progress(who: Who) -> dict[str, Any]:
        told = dict(desk.progress())
        return told if who.lead else {name: told[name] for name in ("waiting", "answered", "leased")}


def row_key(text: str) -> int:
    """A row's key out of a form. Raises DataError when it is none."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) >= 2**63:
        raise DataError("the form names no row; load the page again")
    return int(text)


def count_of(text: str) -> int:
    """A small number out of an address; 0 when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


def seconds_since(shown: str | None, now: float) -> float | None:
    """Seconds since a form was made; None when that cannot be or is above an hour.

    >>> seconds_since("10.5", 12.0), seconds_since("nan", 12.0), seconds_since("99", 12.0)
    (1.5, None, None)
    """
    try:
        passed = now - float(shown or "nan")
    except ValueError:
        return None
    return round(passed, 2) if 0 <= passed <= 3600 else None


__all__ = ["NAME", "Site", "Visitor", "create_app"]
