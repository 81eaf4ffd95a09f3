"""The site: who asks, which forms are good, and templates as responses."""

import getpass
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import labelwright
from labelwright.errors import DataError
from labelwright.interchange import bytes_of
from labelwright.ledger.people import checked_name
from labelwright.ledger.queue import Item
from labelwright.report import words
from labelwright.web.desk import Desk
from labelwright.web.guard import POLICY, Rate, hash_of, same, signed
from labelwright.web.suggest import Suggestions

HERE = Path(__file__).parent
STATIC = HERE / "static"
REPORT = Path(labelwright.report.__file__).parent
TOKEN, NAMED = "labelwright_token", "labelwright_name"


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
        # the style stands in the page and the scripts are one file: each request keeps the first paint waiting
        self.style = "\n".join(place.read_text() for place in (REPORT / "style.css", STATIC / "page.css"))
        self.scripts = ";\n".join((STATIC / name).read_text() for name in ("htmx.min.js", "page.js"))
        self.starter = (STATIC / "starter.js").read_text()
        version = hashlib.sha256(self.scripts.encode()).hexdigest()[:12]
        stands = {"style": Markup(self.style), "starter": Markup(self.starter)}
        self.templates.globals |= {**stands, "scripts": f"/static/page.js?{version}"}
        self.policy = POLICY.format(style=hash_of(self.style), script=hash_of(self.starter))
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
            person = self.checked_token(request, token.strip())
            return None if person is None else Visitor(person.name, person.lead, "")
        token = request.cookies.get(TOKEN, "")
        person = self.checked_token(request, token) if token else None
        return None if person is None else Visitor(person.name, person.lead, signed(self.secret, token))

    def checked_token(self, request: Request, token: str) -> Any:
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
