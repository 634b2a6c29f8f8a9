"""A stand-in for the Hub's HTTP API on the loopback address: whoami, create, list, preupload, LFS, commit, resolve."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_tiny_write"


class Hub:
    """What the stand-in holds: repositories with the bytes of their files, and every request that came."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool | None] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.commits: list[str] = []
        self.role = "write"
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, value: Any, code: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(self) -> None:
        hub, path, body = self.hub, urlsplit(self.path).path, self._body()
        hub.requests.append((self.command, path))
        if path.startswith("/upload/"):
            hub.blobs[hashlib.sha256(body).hexdigest()] = body
            return self._answer({})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid credentials"}, 401)
        if path == "/api/whoami-v2":
            return self._answer({"name": "me", "orgs": [], "auth": {"accessToken": {"role": hub.role}}})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if not repo.startswith("me/"):
                return self._answer({"error": "You don't have the rights to create a model there"}, 403)
            code = 409 if repo in hub.repos else 200
            hub.repos.setdefault(repo, {})
            hub.private.setdefault(repo, asked.get("visibility") == "private" or asked.get("private"))
            return self._answer({"url": f"{hub.address}/{repo}", "name": repo, "id": "1"}, code)
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{hub.address}/upload/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        _, *parts = path.split("/")
        repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repo not in hub.repos:
            return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        there = hub.repos[repo]
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [(f["path"], "lfs" if f["path"].endswith(".safetensors") else "regular") for f in files]
            return self._answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})
        if "/commit/" in path:
            self._commit(there, body)
            return self._answer({"commitUrl": f"{hub.address}/{repo}/commit/1", "commitOid": "1" * 40, "success": True})
        if "/tree/" in path:
            return self._answer(
                [
                    {"type": "file", "path": p, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for p, b in there.items()
                ]
            )
        if "/resolve/" in path:
            name = path.split("/resolve/main/")[1]
            return self._answer(there[name]) if name in there else self._answer({}, 404, X_Error_Code="EntryNotFound")
        siblings = [{"rfilename": name} for name in there]
        return self._answer({"id": repo, "modelId": repo, "siblings": siblings, "private": False, "sha": "1" * 40})

    do_GET = do_POST = do_PUT = do_HEAD = _route

    def _commit(self, there: dict[str, bytes], body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif line["key"] == "file":
                there[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                there[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del there[value["path"]]
