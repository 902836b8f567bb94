"""A judge behind an OpenAI-compatible endpoint on this computer, that answers by rote and misbehaves when told to."""
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLASSES = ["language", "domain", "uninterpretable", "reasoning/hesitation", "reasoning/computation", "reasoning/other"]


def task_of(body):
    system = body["messages"][0]["content"]
    return next(task for task, key in (("classify", "label"), ("describe", "description"), ("detect", "active"))
                if f'{{"{key}":' in system)


def rote(body):
    """The same answer to the same question, whenever and however often it is asked."""
    user = body["messages"][1]["content"]
    number = int(hashlib.sha256(user.encode()).hexdigest(), 16)
    task = task_of(body)
    if task == "classify":
        return json.dumps({"label": CLASSES[number % len(CLASSES)]})
    if task == "describe":
        return f"Here it is: {json.dumps({'description': f'tokens of kind {number % 1000}'})}"
    excerpts = [int(found) for found in re.findall(r"--- excerpt (\d+) ---", user)]
    return json.dumps({"active": [one for one in excerpts if number >> one & 1]})


def completion(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}],
                       "usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()


class Request:
    """One that came; what a behaviour answers with."""

    def __init__(self, handler, body, attempt):
        self.handler, self.body, self.attempt = handler, body, attempt
        self.key = handler.headers.get("Authorization", "")
        self.time = time.monotonic()

    def answer(self, text):
        self.reply(200, completion(text))

    def well(self):
        self.answer(rote(self.body))

    def reply(self, status, body=b"", **headers):
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.send_header("Content-Length", str(len(body)))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def refuse(self, status, message, **headers):
        self.reply(status, json.dumps({"error": {"message": message}}).encode(), **headers)

    def cut(self, after=0):
        """Ends the connection in the middle of a good answer."""
        body = completion(rote(self.body))
        if after:
            self.handler.send_response(200)
            self.handler.send_header("Content-Length", str(len(body)))
            self.handler.end_headers()
            self.handler.wfile.write(body[:after])
        self.handler.close_connection = True

    def sleep(self, seconds):
        """Until then, or the server's end."""
        self.handler.server.ended.wait(seconds)


class Judge:
    """`behave(request)` answers; requests that came are in `requests`, and how many were under way at most in `most`."""

    def __init__(self, behave=Request.well):
        judge, lock, attempts = self, threading.Lock(), {}
        self.requests, self.under_way, self.most = [], 0, 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = json.dumps(body["messages"])
                with lock:
                    attempts[question] = attempts.get(question, 0) + 1
                    request = Request(self, body, attempts[question])
                    judge.requests.append(request)
                    judge.under_way += 1
                    judge.most = max(judge.most, judge.under_way)
                try:
                    if self.path == "/v1/chat/completions":
                        behave(request)
                    else:
                        request.refuse(404, f"no {self.path} here")
                except OSError:
                    self.close_connection = True  # nobody waits for it any more
                finally:
                    with lock:
                        judge.under_way -= 1

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.ended.set()
        self.server.shutdown()
        self.server.server_close()
