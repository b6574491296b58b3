"""Work that is done later: the jobs of TheRouter, and the store on another port where their results lie."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .checks import Refusal

if TYPE_CHECKING:
    from .base import Ask, Job, Reply

KEPT_S = 7 * 24 * 3600


class Store:
    """Presigned links: whoever sends a key along is refused. `redirects` and `status` answer in place of the file."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.redirects: list[str] = []
        self.status = 200
        self.mangle: Callable[[bytes], bytes] = lambda content: content
        self.content_type: str | None = None
        self._files: dict[str, tuple[str, bytes]] = {}
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        if self._server is None:
            store = self

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    store._answer(self)

                def log_message(self, format: str, *args: Any) -> None:
                    return None

            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self._server.daemon_threads = True
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, name: str, content_type: str, content: bytes) -> str:
        self._files[name] = (content_type, content)
        return f"{self.url}/{name}?X-Amz-Signature=x"

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append({"path": handler.path, **{name.lower(): text for name, text in handler.headers.items()}})
        found = self._files.get(handler.path[1:].partition("?")[0])
        headers: dict[str, str] = {}
        if "Authorization" in handler.headers:
            status, content = 400, b"<Error><Code>InvalidArgument</Code></Error>"
        elif self.redirects:
            status, content, headers = 302, b"", {"Location": self.redirects.pop(0)}
        elif found is None or self.status != 200:
            status, content = (404 if found is None else self.status), b"<Error><Code>AccessDenied</Code></Error>"
        else:
            status, content = 200, self.mangle(found[1])
            headers = {"Content-Type": self.content_type or found[0]}
        handler.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(content)


@dataclass
class Desk:
    """How jobs go. `way`: `query` takes `?async=true`, `jobs` takes POST /jobs alone and answers the other `refusal`.

    `states`: what each look tells, the last one for ever. `result`: where it lies: `urls`, `data`, `inline` (text
    alone), `content`. `expires`: `integer` or `text`. `polling`: `relative`, `absolute`, `foreign` (another host) or
    None. `at_once`: 200 with the result in place of a job.
    """

    way: str = "query"
    refusal: int = 404
    states: tuple[str, ...] = ("queued", "in_progress", "succeeded")
    result: str = "urls"
    expires: str = "integer"
    kept_s: int = KEPT_S
    polling: str | None = "relative"
    at_once: bool = False
    reason: str = "The provider gave up"
    cost_usd: float | None = None
    store: Store = field(default_factory=Store)
    base_url: str = ""
    root: str = ""
    _jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def refuses(self, ask: Ask) -> Refusal | None:
        if ask.method != "POST" or not self._is_asked(ask):
            return None
        if (ask.path == "/jobs") == (self.way == "jobs"):
            return None
        return Refusal(self.refusal, f"Not found: {ask.path}")

    def takes(self, ask: Ask) -> bool:
        """Tell whether this request makes a job; a job is then read like the request that would be answered at once."""
        return self._is_asked(ask) and not self.at_once

    def submit(self, job: Job, ask: Ask, finished: Callable[[], Reply]) -> Reply:
        from .base import json_reply

        id_ = f"aud_{len(self._jobs) + 1:02d}"
        self._jobs[id_] = {"model": job.model.id, "kind": job.kind, "finished": finished, "looks": 0}
        told = {"id": id_, "object": "audio_job", "status": self.states[0], "model": job.model.id,
                "created_at": int(time.time()), "expires_at": self._expiry()}  # fmt: skip
        if self.polling is not None:
            host = {"relative": "", "absolute": self.root, "foreign": self.store.url}[self.polling]
            told["polling_url"] = f"{host}{self.base_url}/jobs/{id_}"
        return json_reply(202, told)

    def look_up(self, ask: Ask) -> Reply | Refusal:
        from .base import bytes_reply, json_reply

        id_, _, rest = ask.path.removeprefix("/jobs/").partition("/")
        job = self._jobs.get(id_)
        if job is None:
            return Refusal(404, f"Job {id_} not found")
        if rest == "content":
            return bytes_reply(302, "text/plain", b"", (("Location", self._stored(id_, job)),))
        state = self.states[min(job["looks"], len(self.states) - 1)]
        job["looks"] += 1
        told: dict[str, Any] = {"id": id_, "object": "audio_job", "status": state, "model": job["model"],
                                "created_at": int(time.time()), "expires_at": self._expiry()}  # fmt: skip
        if state in ("failed", "cancelled", "expired"):
            told["error"] = {"code": 502, "message": self.reason}
        if state == "succeeded":
            told |= self._result(id_, job)
            if self.cost_usd is not None:
                told["usage"] = {"cost": self.cost_usd}
        return json_reply(200, told)

    def _result(self, id_: str, job: dict[str, Any]) -> dict[str, Any]:
        if self.result == "urls":
            return {"unsigned_urls": [self._stored(id_, job)]}
        if self.result == "data":
            return {"result": {"data": [{"url": self._stored(id_, job)}]}}
        if self.result == "inline":
            body = b"".join(job["finished"]().pieces()).decode()
            import json

            return {"result": json.loads(body)}
        return {}

    def _stored(self, id_: str, job: dict[str, Any]) -> str:
        reply = job["finished"]()
        return self.store.put(f"{id_}.out", reply.content_type, b"".join(reply.pieces()))

    def _expiry(self) -> int | str:
        at = int(time.time()) + self.kept_s
        return at if self.expires == "integer" else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")

    def _is_asked(self, ask: Ask) -> bool:
        return ask.query.get("async") == "true" or ask.path == "/jobs" or bool(ask.is_job)
