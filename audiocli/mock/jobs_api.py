"""Background jobs of TheRouter, and the object store on another port that serves their results."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .field_validation import Refusal
from .messages import ParsedRequest, Response, bytes_response, json_response
from .tasks import Task

RETENTION_S = 7 * 24 * 3600


class ResultStore:
    """An object store with presigned URLs. Requests with an Authorization header are refused.

    `redirects` and `status` replace the response with the file. `transform` changes the bytes of a file.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.redirects: list[str] = []
        self.status = 200
        self.transform: Callable[[bytes], bytes] = lambda content: content
        self.content_type: str | None = None
        self._files: dict[str, tuple[str, bytes]] = {}
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        if self._server is None:
            store = self

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    store._handle_get(self)

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

    def _handle_get(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append({"path": handler.path, **{name.lower(): text for name, text in handler.headers.items()}})
        file = self._files.get(handler.path[1:].partition("?")[0])
        headers: dict[str, str] = {}
        if "Authorization" in handler.headers:
            status, content = 400, b"<Error><Code>InvalidArgument</Code></Error>"
        elif self.redirects:
            status, content, headers = 302, b"", {"Location": self.redirects.pop(0)}
        elif file is None or self.status != 200:
            status, content = (404 if file is None else self.status), b"<Error><Code>AccessDenied</Code></Error>"
        else:
            status, content = 200, self.transform(file[1])
            headers = {"Content-Type": self.content_type or file[0]}
        handler.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(content)


@dataclass
class JobsApi:
    """The background jobs of one gateway.

    `submit_via`: `query` accepts `?async=true`, `jobs` accepts POST /jobs; the other one gets `refusal_status`.
    `statuses`: the status at each poll; the last one is repeated. `result_kind`: `urls`, `data`, `inline` (text only)
    or `content`. `expiry_type`: `integer` or `text`. `polling_url_kind`: `relative`, `absolute`, `foreign` (another
    host) or None. `complete_immediately`: respond with 200 and the result in place of a job.
    """

    submit_via: str = "query"
    refusal_status: int = 404
    statuses: tuple[str, ...] = ("queued", "in_progress", "succeeded")
    result_kind: str = "urls"
    expiry_type: str = "integer"
    retention_s: int = RETENTION_S
    polling_url_kind: str | None = "relative"
    complete_immediately: bool = False
    failure_message: str = "The provider gave up"
    cost_usd: float | None = None
    store: ResultStore = field(default_factory=ResultStore)
    base_url: str = ""
    root_url: str = ""
    _jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find_refusal(self, request: ParsedRequest) -> Refusal | None:
        if request.method != "POST" or not self._is_submission(request):
            return None
        if (request.path == "/jobs") == (self.submit_via == "jobs"):
            return None
        return Refusal(self.refusal_status, f"Not found: {request.path}")

    def creates_job(self, request: ParsedRequest) -> bool:
        """Return whether this request creates a job. The body of a job is that of the synchronous request."""
        return self._is_submission(request) and not self.complete_immediately

    def submit(self, task: Task, request: ParsedRequest, build_result: Callable[[], Response]) -> Response:
        id_ = f"aud_{len(self._jobs) + 1:02d}"
        self._jobs[id_] = {"model": task.model.id, "kind": task.kind, "build_result": build_result, "polls": 0}
        fields = {"id": id_, "object": "audio_job", "status": self.statuses[0], "model": task.model.id,
                "created_at": int(time.time()), "expires_at": self._format_expiry()}  # fmt: skip
        if self.polling_url_kind is not None:
            host = {"relative": "", "absolute": self.root_url, "foreign": self.store.url}[self.polling_url_kind]
            fields["polling_url"] = f"{host}{self.base_url}/jobs/{id_}"
        return json_response(202, fields)

    def handle_get(self, request: ParsedRequest) -> Response | Refusal:
        id_, _, subpath = request.path.removeprefix("/jobs/").partition("/")
        job = self._jobs.get(id_)
        if job is None:
            return Refusal(404, f"Job {id_} not found")
        if subpath == "content":
            return bytes_response(302, "text/plain", b"", (("Location", self._store_result(id_, job)),))
        status = self.statuses[min(job["polls"], len(self.statuses) - 1)]
        job["polls"] += 1
        fields: dict[str, Any] = {"id": id_, "object": "audio_job", "status": status, "model": job["model"],
                                "created_at": int(time.time()), "expires_at": self._format_expiry()}  # fmt: skip
        if status in ("failed", "cancelled", "expired"):
            fields["error"] = {"code": 502, "message": self.failure_message}
        if status == "succeeded":
            fields |= self._build_result_fields(id_, job)
            if self.cost_usd is not None:
                fields["usage"] = {"cost": self.cost_usd}
        return json_response(200, fields)

    def _build_result_fields(self, id_: str, job: dict[str, Any]) -> dict[str, Any]:
        if self.result_kind == "urls":
            return {"unsigned_urls": [self._store_result(id_, job)]}
        if self.result_kind == "data":
            return {"result": {"data": [{"url": self._store_result(id_, job)}]}}
        if self.result_kind == "inline":
            body = job["build_result"]().read()
            return {"result": json.loads(body)}
        return {}

    def _store_result(self, id_: str, job: dict[str, Any]) -> str:
        response = job["build_result"]()
        return self.store.put(f"{id_}.out", response.content_type, response.read())

    def _format_expiry(self) -> int | str:
        expires_at_s = int(time.time()) + self.retention_s
        return (
            expires_at_s
            if self.expiry_type == "integer"
            else datetime.fromtimestamp(expires_at_s, UTC).isoformat().replace("+00:00", "Z")
        )

    def _is_submission(self, request: ParsedRequest) -> bool:
        return request.query.get("async") == "true" or request.path == "/jobs" or bool(request.is_background_job)
