"""The small API for scripts: the next item, an answer, undo, progress."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field

from labelwright.ledger.queue import Item
from labelwright.web.site import Site, Visitor


class Said(BaseModel):
    """An answer as a script gives it. label: a class, or kind: unsure, none, broken or skip."""

    key: int = Field(ge=0, lt=2**63)
    label: str | None = Field(None, max_length=10_000)
    kind: str = Field("", max_length=20)
    seconds: float | None = Field(None, ge=0, le=86_400)


def api(app: FastAPI, site: Site) -> None:
    """Adds the API's routes."""
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
