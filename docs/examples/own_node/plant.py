"""A black box that lives elsewhere: a small server, standard library only.

    python plant.py --port 9000 --target 0.3

POST {"points": [[...], ...]} to / gives {"values": [...]}; here each value is a squared distance
that the other side never sees as a formula. `--flaky 0.2` makes every fifth answer a 503, to see
retries at work. As a command, without --port, it reads one question on stdin and answers on stdout.
"""

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def evaluate(points: list[list[float]], target: float) -> list[float]:
    """Return the plant's cost at each setting."""
    return [sum((x - target) ** 2 for x in point) for point in points]


def make_handler(target: float, flaky: float) -> type[BaseHTTPRequestHandler]:
    """Return the handler of a plant; every 1/flaky-th question meets a refusal."""
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal asked
            asked += 1
            question = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if flaky and asked % max(2, round(1 / flaky)) == 0:
                self.send_error(503, "the plant is busy")
                return
            try:
                values = evaluate(json.loads(question)["points"], target)
            except (ValueError, KeyError, TypeError) as error:
                self.send_error(400, f"not a question: {type(error).__name__}")
                return
            answer = json.dumps({"values": values}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help="serve on 127.0.0.1; without, answer stdin once")
    parser.add_argument("--target", type=float, default=0.3)
    parser.add_argument("--flaky", type=float, default=0.0)
    options = parser.parse_args()
    if options.port is None:
        values = evaluate(json.load(sys.stdin)["points"], options.target)
        json.dump({"values": values}, sys.stdout)
        return
    handler = make_handler(options.target, options.flaky)
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
