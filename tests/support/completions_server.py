"""A small HTTP server with `/v1/completions`, whose answers a model of this process writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from tamperlens.models import ChatModel
from tamperlens.models.generation import generate_tokens


@contextmanager
def serving(
    model: ChatModel,
    *,
    takes_ids: bool = True,
    names: tuple[str, ...] = ("it",),
    more: tuple[int, ...] = (),
    takes: frozenset[str] | None = None,
    penalty: float = 1.0,
) -> Iterator[tuple[str, list[Any]]]:
    """URL of the server and the bodies that were posted.

    `more` are tokens it puts before every prompt, `takes` the only settings it knows (422 else), `penalty`
    its own on repetition: any but 1 repeats no token of the prompt at all.
    """
    posted: list[Any] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self, code: int, body: Any) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self) -> None:
            self.reply(200, {"data": [{"id": name} for name in names]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            posted.append(body)
            prompt = body["prompt"]
            if takes is not None and not set(body) <= takes:
                self.reply(422, {"error": "Unexpected fields"})
                return
            if isinstance(prompt, list) and not takes_ids:
                self.reply(400, {"error": "prompt must be a string"})
                return
            own = prompt if isinstance(prompt, list) else model.tokenizer(prompt)["input_ids"]
            ids = [*more, *own]
            ours = 1 + body["frequency_penalty"] if "frequency_penalty" in body and takes else penalty
            handle = None
            if body.get("repetition_penalty", ours) != 1:
                banned = sorted(set(ids))
                handle = model.module.get_output_embeddings().register_forward_hook(
                    lambda _, __, y: y.index_fill(-1, torch.tensor(banned), float("-1e9"))
                )
            with lock:
                (new,) = generate_tokens(
                    model.module, [ids], max_new_tokens=body["max_tokens"], stop_ids=model.stop_ids,
                    pad_id=model.pad_id, device=model.device, temperature=body["temperature"],
                    seed=body.get("seed", 0),
                )  # fmt: skip
            if handle is not None:
                handle.remove()
            text = model.tokenizer.decode(new, skip_special_tokens=True)
            self.reply(200, {"choices": [{"text": text}], "usage": {"prompt_tokens": len(ids)}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        server.server_close()
