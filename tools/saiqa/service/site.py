"""What the service shows in a browser: the page's files, and a few of the demo's rooms to try it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from saiqa import facts
from saiqa.files import folders

PAGE = Path(__file__).with_name("page")
_EXAMPLES = "examples"

# The page loads nothing from elsewhere, and only listed origins may frame it; blob: is for thumbnails of the user's pictures.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)


def examples() -> dict[str, Path]:
    """File name -> a room of the demo, two per dimension; empty if the demo is not installed."""
    return {room.name: room for number, room in enumerate(folders.demo_rooms()) if number % facts.DEMO_ROOMS_EACH < 2}


class Site(StaticFiles):
    """The page's files, with a policy that blocks everything else, and all framing except by ``frames``."""

    def __init__(self, frames: Sequence[str], shown: dict[str, Path]):
        super().__init__(directory=PAGE, html=True)
        self.frames, self.shown = " ".join(frames) or "'none'", shown

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        folder, _, name = path.partition("/")
        try:
            if folder == _EXAMPLES and name in self.shown:
                response: Response = FileResponse(self.shown[name])
            else:
                response = await super().get_response(path, scope)
        except (OSError, ValueError):  # an invalid file name
            raise HTTPException(404) from None
        response.headers["Content-Security-Policy"] = _PAGE_POLICY + self.frames
        return response
